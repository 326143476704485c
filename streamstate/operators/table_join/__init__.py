"""Joins of two tables with equal keys."""
