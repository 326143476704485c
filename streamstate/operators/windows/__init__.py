"""Aggregations per key and window: ``windowed_by``."""
