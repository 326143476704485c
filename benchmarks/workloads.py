"""The workloads: what is computed, on which input, by whom, and what of it is a goal.

Rule of this module: data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["GOALS", "WORKLOADS", "Case", "Goal", "Workload"]

Kind = Literal["throughput", "latency", "restore", "limit"]
Metric = Literal["rate", "memory", "p99", "restore"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One comparison.

    Attributes:
        name: in options, tables and files.
        title: for people.
        kind: how it is measured.
        work: what a contender computes.
        inputs: roles of the topics that it reads.
        contenders: their names, ours first.
        rate: records per second offered, for latency.
        intervals_ms: commit intervals that it is measured with.
        note: what a reader must know about the comparison.
        repartitions: every record goes through a repartition topic.
    """

    name: str
    title: str
    kind: Kind
    work: str
    contenders: tuple[str, ...]
    inputs: tuple[str, ...] = ("events",)
    rate: int = 0
    intervals_ms: tuple[int, ...] = (1_000, 100)
    note: str = ""
    repartitions: bool = False


_EVERYBODY = ("streamstate", "kafka-streams", "quix", "loop")

_ALL = (
    Workload("count-update", "keyed count, every update emitted", "throughput", "count-update", _EVERYBODY),
    Workload(
        "count-commit",
        "keyed count, emitted at commit",
        "throughput",
        "count-commit",
        ("streamstate", "kafka-streams-cache", "kafka-streams-bigcache", "quix", "loop"),
        note="Kafka Streams holds updates back in a cache, and emits also when the cache is full; Quix Streams cannot "
        "hold them back and emits every update. Whoever takes longer commits more often, and so emits more.",
    ),
    Workload("map", "stateless map", "throughput", "map", _EVERYBODY),
    Workload(
        "two-processes",
        "keyed count, every update emitted, two processes",
        "throughput",
        "count-update",
        ("streamstate-2p", "kafka-streams-2t", "kafka-streams-2p"),
        intervals_ms=(1_000,),
    ),
    Workload("tumbling-mean", "tumbling mean of a minute", "throughput", "tumbling-mean", _EVERYBODY),
    Workload(
        "table-join",
        "stream-table join",
        "throughput",
        "table-join",
        _EVERYBODY,
        ("table", "events"),
        note="A table of 100,000 rows is read first and counts as input. Quix Streams uses its as-of join.",
    ),
    Workload(
        "stream-join",
        "stream-stream join within a second",
        "throughput",
        "stream-join",
        _EVERYBODY,
        ("left", "right"),
        note="The records are shared out between the two streams. Quix Streams uses its interval join.",
    ),
    Workload(
        "repartition", "repartition, then keyed count", "throughput", "repartition", _EVERYBODY, repartitions=True
    ),
    Workload(
        "latency-2k",
        "end-to-end latency at 2,000 records/s",
        "latency",
        "count-update",
        _EVERYBODY,
        rate=2_000,
        intervals_ms=(100,),
    ),
    Workload(
        "latency-10k",
        "end-to-end latency at 10,000 records/s",
        "latency",
        "count-update",
        _EVERYBODY,
        rate=10_000,
        intervals_ms=(100,),
    ),
    Workload(
        "restore",
        "restore of entries of 100 bytes by changelog replay",
        "restore",
        "restore",
        ("streamstate", "kafka-streams", "loop"),
        intervals_ms=(1_000,),
        note="The loop replays a plain topic with the same entries into RocksDB, without a write-ahead log. The time "
        "from the start is long for Kafka Streams because it follows the process that wrote the changelog, which does "
        "not leave its group when it ends: the rest of its session time-out is in it.",
    ),
    Workload("limit-consume", "limit: raw consume rate", "limit", "consume", ("client",), intervals_ms=(0,)),
    Workload("limit-produce", "limit: raw produce rate", "limit", "produce", ("client",), intervals_ms=(1_000,)),
    Workload(
        "limit-rocksdb",
        "limit: raw RocksDB write rate, entries of 100 bytes",
        "limit",
        "rocksdb",
        ("client",),
        (),
        intervals_ms=(0,),
    ),
)

WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _ALL}


@dataclass(frozen=True, slots=True)
class Case:
    """A workload at one commit interval."""

    workload: Workload
    commit_ms: int

    @property
    def name(self) -> str:
        """Such as ``count-update@100ms``; without the interval where it has none."""
        return f"{self.workload.name}@{self.commit_ms}ms" if self.commit_ms else self.workload.name

    def records(self, records: int) -> int:
        """How many of the suite's records are read: a quarter at intervals other than the workload's first, which
        make up for it in commits."""
        return records if self.commit_ms == self.workload.intervals_ms[0] else max(records // 4, 1)


@dataclass(frozen=True, slots=True)
class Goal:
    """What we want to reach.

    Attributes:
        workload: where, at its first commit interval.
        against: the other contender.
        bound: our value divided by theirs is to be at least this; at most, for memory and latency.
        metric: what is compared.
    """

    workload: str
    against: str
    bound: float
    metric: Metric = "rate"

    @property
    def is_limit(self) -> bool:
        """True where less is better."""
        return self.metric in ("memory", "p99")

    def met(self, value: float) -> bool:
        """Whether this ratio reaches it."""
        return value <= self.bound if self.is_limit else value >= self.bound


_LOOPED = ("count-update", "count-commit", "map", "tumbling-mean", "table-join", "stream-join", "repartition")

GOALS: tuple[Goal, ...] = (
    Goal("count-update", "kafka-streams", 2.0),
    Goal("count-commit", "kafka-streams-cache", 2.5),
    Goal("count-commit", "kafka-streams-bigcache", 2.5),
    Goal("count-update", "quix", 6.0),
    Goal("count-commit", "quix", 6.0),
    Goal("map", "kafka-streams", 1.3),
    *(Goal(name, "kafka-streams", 1.3) for name in ("tumbling-mean", "table-join", "stream-join", "repartition")),
    *(Goal(name, "loop", 0.85) for name in _LOOPED),
    Goal("two-processes", "kafka-streams-2t", 1.5),
    Goal("restore", "kafka-streams", 1.4, "restore"),
    Goal("latency-10k", "kafka-streams", 1.0, "p99"),
    Goal("count-update", "kafka-streams", 0.5, "memory"),
)
