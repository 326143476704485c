"""Processors: punctuations, and stores of all kinds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from random import Random
from typing import Final

from streamstate import serde
from streamstate.dsl import stores
from streamstate.dsl.topology import Topology
from streamstate.operators.process.api import Processor, ProcessorContext
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["WORKLOADS"]

TEXT, LONG = serde.string(), serde.long()


def numbered(random: Random, topic: str, partitions: int) -> list[InputRecord]:
    """Records with their numbers as values, some of them out of order."""
    return keyed_input(random, topic, partitions, lambda number, key: LONG.serialize(number), jitter_ms=3_000)


def number(record: InputRecord) -> int:
    """The value of a record, which is its number."""
    found: int = LONG.deserialize(record.value or b"")
    return found


# -- recent: a store with a time to live, read, iterated, written and deleted --------------------------------------

TTL_MS: Final = 4_000


class Recent(Processor[str, int, str, str]):
    """Tells what else was there a short time ago."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.recent = context.store("recent")

    def process(self, key: str, value: int) -> None:
        before = self.recent.get(key)
        self.recent.put(key, None if value % 7 == 6 else value)
        there = " ".join(f"{other}{number}" for other, number in self.recent.all())
        self.context.forward(key, f"{before}, {there}")


def remembered(records: list[InputRecord]) -> Iterator[Output]:
    """What ``Recent`` makes of a partition."""
    written: dict[bytes, tuple[int, int]] = {}
    now = -1
    for record in records:
        now = max(now, record.timestamp)
        written = {key: entry for key, entry in written.items() if entry[1] + TTL_MS > now}
        key, value = record.key or b"", number(record)
        before = written.pop(key, (None, 0))[0]
        if value % 7 != 6 and record.timestamp + TTL_MS > now:
            written[key] = (value, record.timestamp)
        there = " ".join(f"{other.decode()}{entry[0]}" for other, entry in sorted(written.items()))
        yield Output(key, f"{before}, {there}".encode(), record.timestamp)


def _recent() -> Workload:
    topology = Topology("recent")
    kept = stores.key_value("recent", key=TEXT, value=LONG, ttl=timedelta(milliseconds=TTL_MS))
    numbers = topology.stream("numbers", key=TEXT, value=LONG)
    numbers.process(Recent, stores=[kept]).to("told", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return numbered(random, "numbers", partitions)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"told": Exactly(per_partition(fed, "numbers", remembered))}

    return Workload("recent", topology.build(), inputs, expected)


# -- reminders: lists, and timers in stream time that are set, moved and cancelled ----------------------------------

QUIET_MS: Final = 2_000


class Quiet(Processor[str, int, str, str]):
    """Collects a key's numbers until nothing has come for it for two seconds."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.numbers = context.store("numbers")
        self.timers = context.timers("quiet", self.quiet)

    def process(self, key: str, value: int) -> None:
        self.numbers.append(key, value)
        if value % 9 == 8:
            self.timers.cancel(key)
        else:
            self.timers.set(key, self.context.timestamp + QUIET_MS)

    def quiet(self, key: str, time_ms: int) -> None:
        self.context.forward(key, " ".join(map(str, self.numbers.iterate(key))))
        if self.numbers.length(key) > 1:
            # What is left is told once more.
            self.numbers.pop_left(key)
            self.timers.set(key, time_ms + QUIET_MS)
        else:
            self.numbers.clear(key)


def fell_quiet(records: list[InputRecord]) -> Iterator[Output]:
    """What ``Quiet`` makes of a partition."""
    numbers: dict[bytes, list[int]] = {}
    timers: dict[bytes, int] = {}
    now = -1
    for record in records:
        key, value = record.key or b"", number(record)
        numbers.setdefault(key, []).append(value)
        timers.pop(key, None)
        if value % 9 != 8:
            timers[key] = record.timestamp + QUIET_MS
        if record.timestamp <= now:
            continue
        now = record.timestamp
        while timers and min(timers.values()) <= now:
            time, first = min((time, key) for key, time in timers.items())
            yield Output(first, " ".join(map(str, numbers[first])).encode(), time)
            del timers[first]
            if len(numbers[first]) > 1:
                numbers[first].pop(0)
                timers[first] = time + QUIET_MS
            else:
                numbers[first].clear()


def _reminders() -> Workload:
    topology = Topology("reminders")
    kept = [stores.list_("numbers", key=TEXT, value=LONG), stores.timers("quiet", key=TEXT)]
    numbers = topology.stream("numbers", key=TEXT, value=LONG)
    numbers.process(Quiet, stores=kept).to("told", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return numbered(random, "numbers", partitions)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"told": Exactly(per_partition(fed, "numbers", fell_quiet))}

    return Workload("reminders", topology.build(), inputs, expected)


# -- visits: a window store and a session store ---------------------------------------------------------------------

RETENTION_MS: Final = 9_000
GAP_MS: Final = 1_500


class Visits(Processor[str, int, str, str]):
    """Counts a key's records by second, and merges what is close together."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.seconds = context.store("seconds")
        self.visits = context.store("visits")

    def process(self, key: str, value: int) -> None:
        time = self.context.timestamp
        second = time // 1_000 * 1_000
        self.seconds.put(key, (self.seconds.get(key, second) or 0) + 1, second)
        start, end, count = time, time, 1
        for visit, records in self.visits.fetch(key, time - GAP_MS, time + GAP_MS):
            self.visits.remove(key, visit.start, visit.end)
            start, end, count = min(start, visit.start), max(end, visit.end), count + records
        self.visits.put(key, start, end, count)
        seconds = [f"{at % 100_000}:{records}" for at, records in self.seconds.fetch(key, time - 6_000, time)]
        visits = [f"{v.end - v.start}:{records}" for v, records in self.visits.fetch_all()]
        self.context.forward(key, f"{' '.join(seconds)}, {' '.join(sorted(visits))}")


def visited(records: list[InputRecord]) -> Iterator[Output]:
    """What ``Visits`` makes of a partition."""
    seconds: dict[tuple[bytes, int], int] = {}
    visits: dict[tuple[bytes, int, int], int] = {}
    second_seen = visit_seen = -1
    for record in records:
        key, time = record.key or b"", record.timestamp
        second = time // 1_000 * 1_000
        second_seen = max(second_seen, second)
        seconds[key, second] = seconds.get((key, second), 0) + 1
        seconds = {at: count for at, count in seconds.items() if at[1] > second_seen - RETENTION_MS}
        close = [v for v in visits if v[0] == key and v[2] >= time - GAP_MS and v[1] <= time + GAP_MS]
        start, end = min([time, *(v[1] for v in close)]), max([time, *(v[2] for v in close)])
        count = 1 + sum(visits.pop(v) for v in close)
        visit_seen = max(visit_seen, end)
        visits[key, start, end] = count
        visits = {v: count for v, count in visits.items() if v[2] > visit_seen - RETENTION_MS}
        mine = sorted((at, count) for (other, at), count in seconds.items() if other == key)
        shown = [f"{at % 100_000}:{count}" for at, count in mine if time - 6_000 <= at <= time]
        others = sorted(f"{v[2] - v[1]}:{count}" for v, count in visits.items())
        yield Output(key, f"{' '.join(shown)}, {' '.join(others)}".encode(), time)


def _visits() -> Workload:
    topology = Topology("visits")
    retention = timedelta(milliseconds=RETENTION_MS)
    kept = [
        stores.window("seconds", key=TEXT, value=LONG, size=timedelta(seconds=1), retention=retention),
        stores.session("visits", key=TEXT, value=LONG, retention=retention),
    ]
    numbers = topology.stream("numbers", key=TEXT, value=LONG)
    numbers.process(Visits, stores=kept).to("told", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return numbered(random, "numbers", partitions)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"told": Exactly(per_partition(fed, "numbers", visited))}

    return Workload("visits", topology.build(), inputs, expected)


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


WORKLOADS: Final = {"punctuation": punctuation, "recent": _recent, "reminders": _reminders, "visits": _visits}
