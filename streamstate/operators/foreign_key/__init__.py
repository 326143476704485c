"""Joins of two tables by a foreign key: ``Table.join(foreign_key=...)``."""
