"""Operators that a user writes as a class: ``process``, ``process_values``, ``transform_values``."""
