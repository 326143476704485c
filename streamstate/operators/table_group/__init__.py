"""Aggregations of the rows of a table: ``Table.group_by``."""
