"""Counts by key, with every update and with the newest at each commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Final

from streamstate import serde
from streamstate.dsl.topology import Topology
from streamstate.testing.simulation.expectations import Exactly, Expectation, NewestOf, Output, by_key
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["WORKLOADS"]

TEXT: Final = serde.string()

# -- count: a store per partition, every update ------------------------------------------------------------


def counted(records: list[InputRecord]) -> Iterator[Output]:
    """The changes of a count: the timestamp of an entry never goes back."""
    counts: Counter[bytes | None] = Counter()
    newest: dict[bytes | None, int] = {}
    for record in records:
        counts[record.key] += 1
        newest[record.key] = max(record.timestamp, newest.get(record.key, 0))
        yield Output(record.key, serde.long().serialize(counts[record.key]), newest[record.key])


def count() -> Workload:
    topology = Topology("count")
    counts = topology.stream("clicks", key=TEXT).group_by_key().count(store="counts")
    counts.to_stream().to("counted")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "clicks", partitions, lambda number, key: b"%d" % number, jitter_ms=900)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"counted": Exactly(per_partition(fed, "clicks", counted))}

    return Workload("count", topology.build(), inputs, expected)


# -- newest: emit="commit" ---------------------------------------------------------------------------------


def newest() -> Workload:
    topology = Topology("newest")
    counts = topology.stream("clicks", key=TEXT).group_by_key().count(store="counts")
    counts.to_stream(emit="commit").to("newest")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "clicks", partitions, lambda number, key: b"%d" % number, jitter_ms=900)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"newest": NewestOf(by_key(per_partition(fed, "clicks", counted)))}

    return Workload("newest", topology.build(), inputs, expected)


WORKLOADS: Final = {"count": count, "newest": newest}
