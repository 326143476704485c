"""Operators without state: filters, maps, ``peek``, ``merge``, ``split``."""
