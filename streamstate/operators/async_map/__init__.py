"""Operators that hold records back: ``map_async`` and ``map_batches``."""
