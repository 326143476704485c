"""Topologies with tables, for the tests of them."""

from __future__ import annotations

from typing import Any

from streamstate import (
    Table,
    Topology,
    serde,
)
from tests.unit.application_support import Run

TEXT, LONG, JSON = serde.string(), serde.long(), serde.json()


def table_of(**options: Any) -> tuple[Topology, Table[str, str]]:
    topology = Topology("t")
    return topology, topology.table("in", key=TEXT, value=TEXT, **options)


def results(run: Run, topic: str = "out") -> list[tuple[str | None, str | None]]:
    return [(k and k.decode(), v and v.decode()) for k, v in run.out(topic)]


def feed(run: Run, topic: str, *records: tuple[Any, ...]) -> None:
    """(key, value) or (key, value, event time) as text, processed before this returns."""
    for key, value, *timestamp in records:
        run.broker.append(
            topic,
            key=None if key is None else key.encode(),
            value=None if value is None else value.encode(),
            **({"timestamp": timestamp[0]} if timestamp else {}),
        )
        run.ticks(3)


def joined(compacted: str = "in", **options: Any) -> Run:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT, **options)
    stream = topology.stream("s", key=TEXT, value=TEXT)
    stream.join(table, lambda left, right: f"{left}+{right}").to("out", value=TEXT)
    stream.left_join(table, lambda left, right: f"{left}+{right}").to("left", value=TEXT)
    return Run(topology, {"in": 1, "s": 1}, compacted)


POLICIES = {
    "compacted": ({"cleanup.policy": "compact"}, True),
    "kept": ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}, True),
    "deleted by time": ({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, False),
    "deleted by size": ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "1000"}, False),
    "compacted and deleted": ({"cleanup.policy": "compact,delete", "retention.ms": "604800000"}, False),
    "default": ({}, False),
}
