"""Built-in workloads whose tasks read one topic each, so that nothing about their order is free.

Rule of this module: see ``workloads``. What is expected is written down once more, in plain Python.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from random import Random
from typing import Final

from streamstate import serde, windows
from streamstate.dsl import stores
from streamstate.dsl.stores import dead_letter
from streamstate.dsl.topology import Topology
from streamstate.operators.process.api import Processor, ProcessorContext
from streamstate.testing.simulation.expectations import Exactly, Expectation, NewestOf, Output, PerKey, by_key
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["count", "newest", "poison", "punctuation", "stateless", "windowed"]

TEXT: Final = serde.string()


# -- stateless: filter, map, flat_map and branches ---------------------------------------------------------


def stateless() -> Workload:
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


def punctuation() -> Workload:
    topology = Topology("punctuation")
    numbers = topology.stream("numbers", key=TEXT, value=TEXT)
    sums = stores.key_value("sums", key=TEXT, value=serde.long())
    numbers.process(Report, stores=[sums]).to("reports", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "numbers", partitions, lambda number, key: b"%d" % number, jitter_ms=3_000)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"reports": Exactly(per_partition(fed, "numbers", reported))}

    return Workload("punctuation", topology.build(), inputs, expected)


# -- windows: counts per window, every update, and once more when the window closes ------------------------

SIZE_MS: Final = 10_000
GRACE_MS: Final = 2_000


def windowed() -> Workload:
    topology = Topology("windows")
    clicks = topology.stream("clicks", key=TEXT).group_by_key()
    slots = windows.tumbling(timedelta(milliseconds=SIZE_MS), grace=timedelta(milliseconds=GRACE_MS))
    clicks.windowed_by(slots).count(store="counts").to_stream().to("counted")
    clicks.windowed_by(slots).count(store="closes", emit="close").to_stream().to("closed")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "clicks", partitions, lambda number, key: b"%d" % number, jitter_ms=9_000)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {
            "counted": PerKey(by_key(per_partition(fed, "clicks", counted_by_window))),
            "closed": PerKey(by_key(per_partition(fed, "clicks", closed_windows))),
        }

    return Workload("windows", topology.build(), inputs, expected)


def counted_by_window(records: list[InputRecord]) -> Iterator[Output]:
    """The changes of the counts of a partition. A record that comes when its window's end and grace have passed, by
    stream time, is left out."""
    counts: Counter[bytes] = Counter()
    newest: dict[bytes, int] = {}
    stream_time = -1
    for record in records:
        stream_time = max(stream_time, record.timestamp)
        start = record.timestamp - record.timestamp % SIZE_MS
        if start + SIZE_MS + GRACE_MS <= stream_time:
            continue
        key = (record.key or b"") + start.to_bytes(8)
        counts[key] += 1
        newest[key] = max(record.timestamp, newest.get(key, 0))
        yield Output(key, serde.long().serialize(counts[key]), newest[key])


def closed_windows(records: list[InputRecord]) -> Iterator[Output]:
    """The last count of each window whose end and grace have passed."""
    stream_time = max((record.timestamp for record in records), default=-1)
    last = {change.key: change for change in counted_by_window(records)}
    for change in last.values():
        if int.from_bytes((change.key or b"")[-8:]) + SIZE_MS + GRACE_MS <= stream_time:
            yield change


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


def poison() -> Workload:
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
