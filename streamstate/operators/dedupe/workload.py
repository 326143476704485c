"""Records that repeat others: each identity passes once in its time, also over crashes and moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Final

from streamstate import Topology
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["WORKLOADS"]

WITHIN_MS: Final = 3_000


def _repeated() -> Workload:
    topology = Topology("repeated", key=str, value=str)
    events = topology.stream("events")
    events.dedupe(f"{WITHIN_MS}ms", store="keys", name="by-key").to("first-of-key")
    events.dedupe(f"{WITHIN_MS}ms", by=lambda key, value: value[-1:], store="ends", name="by-end").to("first-of-end")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "events", partitions, lambda at, key: b"%d" % at, keys="abc", jitter_ms=2_000)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {
            "first-of-key": Exactly(per_partition(fed, "events", lambda records: _first(records, end=False))),
            "first-of-end": Exactly(per_partition(fed, "events", lambda records: _first(records, end=True))),
        }

    return Workload("repeated", topology.build(), inputs, expected)


def _first(records: list[InputRecord], *, end: bool) -> Iterator[Output]:
    """What passes of a partition."""
    seen: dict[bytes, int] = {}
    now = -1
    for record in records:
        now = max(now, record.timestamp)
        identity = (record.value or b"")[-1:] if end else record.key or b""
        if identity in seen and now - seen[identity] < WITHIN_MS:
            continue
        yield Output(record.key, record.value or b"", record.timestamp)
        if now - record.timestamp < WITHIN_MS:
            seen[identity] = record.timestamp


WORKLOADS: Final = {"repeated": _repeated}
