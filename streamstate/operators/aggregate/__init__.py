"""Aggregations per key: ``group_by``, ``count``, ``reduce``, ``aggregate``, ``cogroup``."""
