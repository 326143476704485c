"""Joins of two tables, by key and by foreign key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

from streamstate.dsl.topology import Topology
from streamstate.testing.simulation.expectations import (
    Expectation,
)
from streamstate.testing.simulation.library.rows import (
    COMPACTED,
    JSON,
    KEPT,
    LONG,
    TEXT,
    Ends,
    final,
    rows_or_deletions,
)
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload

__all__ = ["WORKLOADS"]

# -- joins: two tables by key and by foreign key -----------------------------------------------------------------


def _joins() -> Workload:
    topology = Topology("joins")
    left = topology.table("left", key=TEXT, value=LONG)
    right = topology.table("right", key=TEXT, value=LONG)
    left.outer_join(right, lambda one, other: [one, other]).to_stream().to("by-key", value=JSON)
    kept = left.left_join(
        right, lambda one, other: [one, other], foreign_key=_wanted, value=JSON, store="kept", name="wants"
    )
    kept.to_stream().to("by-foreign-key", value=JSON)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        for record in rows_or_deletions(random, "left", partitions):
            yield record._replace(topic=random.choice(("left", "right")))

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        one, other = final(fed, "left"), final(fed, "right")
        return {
            "by-key": Ends({key: [one.get(key), other.get(key)] for key in one.keys() | other.keys()}),
            "by-foreign-key": Ends({key: [value, other.get(_wanted(key, value) or "")] for key, value in one.items()}),
        }

    return Workload("joins", topology.build(), inputs, expected, topic_configs={"left": COMPACTED, "right": KEPT})


def _wanted(key: str, value: int) -> str | None:
    return "abcdef"[value % 6] if value < 8 else None


WORKLOADS: Final = {"joins": _joins}
