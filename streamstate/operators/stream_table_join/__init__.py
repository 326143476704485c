"""Joins of a stream with a table or a global table."""
