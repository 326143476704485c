"""Ready-made aggregates, and what the named ones of a store have in common."""

from streamstate.aggregates.ready import (
    Aggregate,
    approximate_distinct,
    collect,
    count,
    earliest,
    first,
    last,
    latest,
    max,
    mean,
    min,
    sum,
    top_k,
)

__all__ = [
    "Aggregate",
    "approximate_distinct",
    "collect",
    "count",
    "earliest",
    "first",
    "last",
    "latest",
    "max",
    "mean",
    "min",
    "sum",
    "top_k",
]
