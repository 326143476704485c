"""The built-in workloads, one for each way in which a topology can go wrong.

Rule of this module: see ``workloads``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from random import Random
from typing import Final

import orjson

from streamstate import serde
from streamstate.errors import ConfigError
from streamstate.partitioning import partition_for
from streamstate.testing.simulation.expectations import (
    Exactly,
    Expectation,
    Interleaved,
    NewestOf,
    Output,
    PerKey,
    PerKeyRule,
    by_key,
)
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition
from streamstate.topology import Processor, ProcessorContext, Topology, dead_letter, stores

__all__ = ["WORKLOADS", "find_workload"]

TEXT = serde.string()


# -- stateless: filter, map, flat_map and branches ---------------------------------------------------------


def _stateless() -> Workload:
    topology = Topology("stateless")
    lines = topology.stream("lines", key=TEXT, value=TEXT)
    kept = lines.filter(lambda key, line: not line.endswith("3"))
    kept.map_values(str.upper).to("upper", key=TEXT, value=TEXT)
    kept.flat_map(lambda key, line: [(key + "1", line), (key + "2", line)]).to("copies", key=TEXT, value=TEXT)
    even, rest = lines.split(lambda key, line: int(line[1:]) % 2 == 0)
    even.to("even")
    rest.to("odd")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "lines", partitions, lambda number, key: f"n{number}".encode(), jitter_ms=900)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        def number(record: InputRecord) -> int:
            return int((record.value or b"")[1:])

        def upper(records: list[InputRecord]) -> Iterator[Output]:
            return (Output(r.key, b"N%d" % number(r), r.timestamp) for r in records if number(r) % 10 != 3)

        kept = [record for record in fed.records if number(record) % 10 != 3]
        copies = [Output((r.key or b"") + end, r.value, r.timestamp) for r in kept for end in (b"1", b"2")]
        branches = {
            name: per_partition(
                fed,
                "lines",
                lambda records, odd=odd: (  # type: ignore[misc]
                    Output(r.key, r.value, r.timestamp) for r in records if number(r) % 2 == odd
                ),
            )
            for name, odd in (("even", 0), ("odd", 1))
        }
        return {
            "upper": Exactly(per_partition(fed, "lines", upper)),
            "copies": PerKey(by_key([copies])),
            **{name: Exactly(partitions) for name, partitions in branches.items()},
        }

    return Workload("stateless", topology.build(), inputs, expected)


# -- count: a store per partition, every update ------------------------------------------------------------


def counted(records: list[InputRecord]) -> Iterator[Output]:
    """The changes of a count: the timestamp of an entry never goes back."""
    counts: Counter[bytes | None] = Counter()
    newest: dict[bytes | None, int] = {}
    for record in records:
        counts[record.key] += 1
        newest[record.key] = max(record.timestamp, newest.get(record.key, 0))
        yield Output(record.key, serde.long().serialize(counts[record.key]), newest[record.key])


def _count() -> Workload:
    topology = Topology("count")
    counts = topology.stream("clicks", key=TEXT).group_by_key().count(store="counts")
    counts.to_stream().to("counted")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "clicks", partitions, lambda number, key: b"%d" % number, jitter_ms=900)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"counted": Exactly(per_partition(fed, "clicks", counted))}

    return Workload("count", topology.build(), inputs, expected)


# -- collect: through a repartition topic into an aggregate ------------------------------------------------


def _collect() -> Workload:
    topology = Topology("collect")
    lines = topology.stream("lines", key=TEXT, value=TEXT)
    words = lines.group_by(lambda key, line: line.split()[0], key=TEXT, value=TEXT)
    seen = words.aggregate(list, lambda word, line, seen: [*seen, line], value=serde.json(), store="seen")
    seen.to_stream().to("seen-lines", key=TEXT, value=serde.json())

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        def line(number: int, key: str) -> bytes:
            partition = partition_for(key.encode(), partitions)
            return f"{random.choice(('ada', 'bob', 'cyd', 'dee'))} {partition} {number}".encode()

        return keyed_input(random, "lines", partitions, line)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        truth: dict[bytes, list[list[str]]] = {}
        for record in fed.records:
            line = (record.value or b"").decode()
            by_source = truth.setdefault(line.split()[0].encode(), [[] for _ in range(fed.partitions)])
            by_source[record.partition].append(line)

        def rule(key: bytes | None, records: Sequence[Output]) -> Iterator[str]:
            """Each output adds one line to the one before; the lines of one input partition keep their order. How
            the lines of different partitions mesh is free."""
            lines = [orjson.loads(record.value or b"null") for record in records]
            for index, line in enumerate(lines):
                before = lines[index - 1] if index else []
                if line[:-1] != before:
                    yield f"record {index} is {line}, the one before was {before}"
                    return
            final = lines[-1] if lines else []
            for source, wanted in enumerate(truth.get(key or b"", [])):
                found = [line for line in final if int(line.split()[1]) == source]
                if found != wanted:
                    yield f"of input partition {source} it has {found}, expected {wanted}"

        return {"seen-lines": PerKeyRule(truth, rule)}

    return Workload("collect", topology.build(), inputs, expected)


# -- merge: two topics in one task; how they mesh is free --------------------------------------------------


class Number(Processor[str, str, str, str]):
    """Adds to each value how many the task has had before it, and when (by event time) the one before was."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.kept = context.store("kept")

    def process(self, key: str, value: str) -> None:
        count, before = self.kept.get("all") or (0, 0)
        self.kept.put("all", (count + 1, self.context.timestamp))
        self.context.forward(key, f"{value} {count} {before}")


def _two_topics() -> Topology:
    topology = Topology("merge")
    both = topology.stream("left", key=TEXT, value=TEXT).merge(topology.stream("right", key=TEXT, value=TEXT))
    kept = stores.key_value("kept", key=TEXT, value=serde.json())
    both.process(Number, stores=[kept]).to("merged", key=TEXT, value=TEXT)
    return topology


def _two_inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
    records = keyed_input(random, "left", partitions, lambda number, key: f"{number}".encode(), most=70)
    for record in records:
        side = random.choice(("left", "right"))
        yield record._replace(topic=side, value=side[:1].encode() + (record.value or b""))


def _merge() -> Workload:
    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"merged": Meshed(fed)}

    return Workload("merge", _two_topics().build(), _two_inputs, expected)


class Meshed:
    """Of ``merge``: the task's numbers are 0, 1, 2 ... in each partition, each names the event time of the one before,
    and the records of each topic keep their order."""

    def __init__(self, fed: Inputs) -> None:
        self._fed = fed

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        plain = []
        for number, records in enumerate(found):
            before = 0
            for index, record in enumerate(records):
                _, count, earlier = (record.value or b"").split()
                if (int(count), int(earlier)) != (index, before):
                    yield f"partition {number}, record {index} is {record}, the one before was at {before}"
                    break
                before = record.timestamp
            plain.append([record._replace(value=(record.value or b"").split()[0]) for record in records])
        sources = [
            [[Output(*record[2:]) for record in self._fed.of(topic, number)] for topic in ("left", "right")]
            for number in range(self._fed.partitions)
        ]
        yield from Interleaved(sources).problems(plain)


# -- merge-by-time: the same with all input there at once: then the order is that of the event times ---------


def _merge_by_time() -> Workload:
    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        partitions = []
        for number in range(fed.partitions):
            both = sorted((*fed.of("left", number), *fed.of("right", number)), key=lambda record: record.timestamp)
            before = [0, *(record.timestamp for record in both)]
            partitions.append(
                [
                    Output(record.key, (record.value or b"") + b" %d %d" % (index, before[index]), record.timestamp)
                    for index, record in enumerate(both)
                ]
            )
        return {"merged": Exactly(partitions)}

    # A partition that has more is waited for as long as it takes.
    settings = {"fetch_wait_ms": 3_600_000, "max_task_idle_ms": 0}
    return Workload("merge-by-time", _two_topics().build(), _two_inputs, expected, settings, at_once=True)


# -- punctuation: by stream time, over a store with deletions ----------------------------------------------

PERIOD_MS = 5_000


class Report(Processor[str, str, str, str]):
    """Sums up per key and reports, and forgets, every five seconds of stream time."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.sums = context.store("sums")
        context.schedule(timedelta(milliseconds=PERIOD_MS), "stream_time", self.report)

    def process(self, key: str, value: str) -> None:
        self.sums.put(key, (self.sums.get(key) or 0) + int(value))

    def report(self, time_ms: int) -> None:
        for key, total in self.sums.all():
            self.context.forward(key, f"{total} at {time_ms}")
            self.sums.delete(key)


def reported(records: list[InputRecord]) -> Iterator[Output]:
    """What ``Report`` makes of a partition: due with the first record, then at each multiple of its period."""
    sums: dict[bytes, int] = {}
    stream_time, due = -1, 0
    for record in records:
        sums[record.key or b""] = sums.get(record.key or b"", 0) + int(record.value or b"")
        if record.timestamp > stream_time:
            stream_time = record.timestamp
            if stream_time >= due:
                due = (stream_time // PERIOD_MS + 1) * PERIOD_MS
                for key, total in sorted(sums.items()):
                    yield Output(key, b"%d at %d" % (total, stream_time), stream_time)
                sums.clear()


def _punctuation() -> Workload:
    topology = Topology("punctuation")
    numbers = topology.stream("numbers", key=TEXT, value=TEXT)
    sums = stores.key_value("sums", key=TEXT, value=serde.long())
    numbers.process(Report, stores=[sums]).to("reports", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "numbers", partitions, lambda number, key: b"%d" % number, jitter_ms=3_000)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"reports": Exactly(per_partition(fed, "numbers", reported))}

    return Workload("punctuation", topology.build(), inputs, expected)


# -- newest: emit="commit" ---------------------------------------------------------------------------------


def _newest() -> Workload:
    topology = Topology("newest")
    counts = topology.stream("clicks", key=TEXT).group_by_key().count(store="counts")
    counts.to_stream(emit="commit").to("newest")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "clicks", partitions, lambda number, key: b"%d" % number, jitter_ms=900)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"newest": NewestOf(by_key(per_partition(fed, "clicks", counted)))}

    return Workload("newest", topology.build(), inputs, expected)


# -- poison: records that fail half way, left out or kept aside --------------------------------------------


class Spoil(Processor[str, str, str, str]):
    """Counts in a store, sends, and only then finds the record bad."""

    def __init__(self, store: str) -> None:
        self._store = store

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.counts = context.store(self._store)

    def process(self, key: str, value: str) -> None:
        count = (self.counts.get(key) or 0) + 1
        self.counts.put(key, count)
        self.context.forward(key, f"{count}")
        if value.startswith("bad"):
            raise ValueError("this record is bad")


def _poison() -> Workload:
    topology = Topology("poison")
    counts = stores.key_value("counts", key=TEXT, value=serde.long())
    dropped = topology.stream("drop", key=TEXT, value=TEXT, on_error="continue")
    kept = topology.stream("keep", key=TEXT, value=TEXT, on_error=dead_letter("dead"))
    again = stores.key_value("counts-again", key=TEXT, value=serde.json())
    dropped.process(lambda: Spoil("counts"), stores=[counts]).to("dropped", key=TEXT, value=TEXT)
    kept.process(lambda: Spoil("counts-again"), stores=[again]).to("kept", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        def value(number: int, key: str) -> bytes:
            return random.choice((b"good %d", b"good %d", b"bad %d")) % number

        for record in keyed_input(random, "drop", partitions, value, jitter_ms=900):
            yield record._replace(topic=random.choice(("drop", "keep")))

    def good(records: list[InputRecord]) -> Iterator[Output]:
        counts: Counter[bytes | None] = Counter()
        for record in records:
            if (record.value or b"").startswith(b"good"):
                counts[record.key] += 1
                yield Output(record.key, b"%d" % counts[record.key], record.timestamp)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        dead = [record for record in fed.records if record.topic == "keep" and (record.value or b"").startswith(b"bad")]
        return {
            "dropped": Exactly(per_partition(fed, "drop", good)),
            "kept": Exactly(per_partition(fed, "keep", good)),
            "dead": PerKey(by_key([[Output(record.key, record.value) for record in dead]])),
        }

    return Workload("poison", topology.build(), inputs, expected)


_MAKERS: Final = {
    "stateless": _stateless,
    "count": _count,
    "collect": _collect,
    "merge": _merge,
    "merge-by-time": _merge_by_time,
    "punctuation": _punctuation,
    "newest": _newest,
    "poison": _poison,
}
WORKLOADS: Final = tuple(_MAKERS)


@cache
def find_workload(name: str) -> Workload:
    """A built-in workload by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in _MAKERS:
        raise ConfigError(f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}")
    return _MAKERS[name]()
