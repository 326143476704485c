"""Any number of versions one after the other over one store: each finds what the ones before it have left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import Topology, serde, windows
from streamstate.errors import TopologyError
from streamstate.graph.emit import WindowEmit as Emit
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, JSON = serde.string(), serde.json()
SECOND = timedelta(seconds=1)
SIZE = 10
Disk = Literal["kept", "lost"]
DISKS: st.SearchStrategy[Disk] = st.sampled_from(["kept", "lost"])


def out(driver: TopologyTestDriver) -> list[tuple[str, str]]:
    return driver.output("out", key=TEXT, value=TEXT).pairs()


# -- grace: a model says what each version sends ----------------------------------------------------------------


@dataclass
class Model:
    """Windows of 10 s under one version after the other; times are in seconds.

    Attributes:
        advance: from one window to the next.
        counts: by start.
        sent: starts of windows that had closed.
        seen: the highest time.
        closed: windows that end by then have closed.
        changed_at: what was seen when the grace was changed.
        stored: the grace under which the last commit was made: that of the first version, which begins with one, until
            another one has committed a record.
    """

    advance: int
    stored: int
    counts: dict[int, int] = field(default_factory=dict)
    sent: set[int] = field(default_factory=set)
    seen: int = -1
    closed: int = -1_000_000
    changed_at: int | None = None

    def refuses(self, grace: int, emit: str) -> bool:
        """Results that were final would be sent again."""
        return emit == "close" and self.stored < grace

    def run(self, grace: int, emit: str, times: list[int]) -> list[tuple[int, int]]:
        """What a version sends: (start, count)."""
        found = []
        if self.stored != grace and self.seen >= 0:
            self.changed_at = self.seen
        for time in times:
            self.stored = grace
            self.seen = max(self.seen, time)
            if self.seen != self.changed_at:
                self.closed = max(self.closed, self.seen - grace)
            # What is late is late at once; what a shorter grace closes is sent when the time moves.
            for start in self.starts(time):
                if start + SIZE > max(self.closed, self.seen - grace):
                    self.counts[start] = self.counts.get(start, 0) + 1
                    if emit != "close":
                        found.append((start, self.counts[start]))
            for start in sorted(self.counts.keys() - self.sent):
                if start + SIZE <= self.closed:
                    self.sent.add(start)
                    if emit == "close":
                        found.append((start, self.counts[start]))
        return found

    def starts(self, time: int) -> list[int]:
        last = time - time % self.advance
        return [start for start in range(last - SIZE + self.advance, last + 1, self.advance) if start + SIZE > time]


def counting(advance: int, grace: int, emit: Emit) -> Topology:
    topology = Topology("graces")
    of = windows.hopping(SIZE * SECOND, advance * SECOND, grace=grace * SECOND)
    table = topology.stream("in", key=TEXT, value=JSON).group_by_key().windowed_by(of).count(store="s", emit=emit)
    stream = table.to_stream()
    stream.map(lambda at, count: (str(at.start // 1_000), str(count))).to("out", key=TEXT, value=TEXT)
    return topology


STEPS = st.lists(st.tuples(st.sampled_from([0, 0, 3, 7, 15]), st.sampled_from([0, 0, 0, 4, 12, 30])), max_size=6)
VERSIONS = st.lists(
    st.tuples(st.sampled_from([0, 5, 20, 60]), st.sampled_from(["update", "close", "commit"]), STEPS, DISKS),
    min_size=2,
    max_size=4,
)


@settings(max_examples=400)
@given(st.sampled_from([10, 5]), VERSIONS)
def test_windows_under_one_grace_after_the_other(
    advance: int, versions: list[tuple[int, Emit, list[tuple[int, int]], Disk]]
) -> None:
    model, now, sent = Model(advance, versions[0][0]), 1_000, 0
    with TopologyTestDriver(counting(advance, *versions[0][:2])) as driver:
        for number, (grace, emit, steps, disk) in enumerate(versions):
            if number and model.refuses(grace, emit):
                with pytest.raises(TopologyError, match=r"store 's' .* their grace cannot become"):
                    driver.deploy(counting(advance, grace, emit), disk=disk)
                return
            if number:
                driver.deploy(counting(advance, grace, emit), disk=disk)
            times = []
            for step, late in steps:
                now += step
                times.append(now - late)
                driver.input("in").pipe("a", 1, timestamp=1_000 * times[-1])
                if late == 12:
                    driver.crash(disk=disk)
            rows = [(int(start), int(count)) for start, count in out(driver)]
            assert rows[sent:] == model.run(grace, emit, times), f"version {number}"
            sent = len(rows)


# -- emit, retention, failing records and crashes: the last version alone says what it sends --------------------

KINDS: dict[str, Callable[[], Any]] = {
    "tumbling": lambda: windows.tumbling(10 * SECOND, grace=60 * SECOND),
    "hopping": lambda: windows.hopping(10 * SECOND, 3 * SECOND, grace=60 * SECOND),
    "session": lambda: windows.session(6 * SECOND, grace=60 * SECOND),
    "sliding": lambda: windows.sliding(6 * SECOND, grace=60 * SECOND),
}
POISON = 13
# Behind all else, on keys of both partitions: everything closes.
LAST = [(key, 1, at) for at in (100, 50_000, 100_000) for key in "abcyz"]


def gathered(key: str, value: int, state: list[int]) -> list[int]:
    if value == POISON:
        raise ValueError("poison")
    return [*state, value]


def gathering(kind: str, repartition: bool, emit: Emit, hours: int | None) -> Topology:
    topology = Topology("emits")
    stream = topology.stream("in", key=TEXT, value=JSON, on_error="continue")
    windowed = (stream.repartition(name="r") if repartition else stream).group_by_key().windowed_by(KINDS[kind]())
    functions: Any = {"initializer": list, "aggregator": gathered}
    if kind == "session":
        functions["merger"] = lambda key, one, other: sorted(one + other)
    retention = None if hours is None else timedelta(hours=hours)
    table = windowed.aggregate(**functions, value=JSON, store="s", emit=emit, retention=retention)
    shown = table.to_stream().map(lambda at, value: (f"{at.key} {at.start} {at.end}", str(value)))
    shown.to("out", key=TEXT, value=TEXT)
    return topology


Record = tuple[str, int, int]
RECORDS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([1, 2, 3, POISON]), st.integers(0, 40)), max_size=8
)
DEPLOYED = st.tuples(st.sampled_from(["update", "close", "commit"]), st.sampled_from([None, 2, 70]), RECORDS, DISKS)


def last_of(topologies: list[Topology], parts: list[list[Record]], disks: list[Disk], crash: bool) -> list[Any]:
    """What the last one sends. Each commits once, when it has seen its records."""
    sent: list[Any] = []
    with TopologyTestDriver(topologies[0], auto_commit=False, partitions=2) as driver:
        for number, (topology, part, disk) in enumerate(zip(topologies, parts, disks, strict=True)):
            if number and topology is not topologies[number - 1]:
                driver.deploy(topology, disk=disk)
            before = len(out(driver))
            for at, (key, value, seconds) in enumerate(part):
                driver.input("in").pipe(key, value, timestamp=1_000 * seconds)
                if crash and at == 1:
                    # Between what was decided at the start and the first commit.
                    driver.crash(disk=disk)
            driver.commit()
            sent = out(driver)[before:]
            if crash:
                driver.crash(disk=disk)
    return sorted(sent)


@settings(max_examples=200)
@given(st.sampled_from(sorted(KINDS)), st.booleans(), st.lists(DEPLOYED, min_size=2, max_size=4), st.booleans())
def test_emit_and_retention_change_any_number_of_times(
    kind: str, repartition: bool, versions: list[tuple[Emit, int | None, list[Record], Disk]], crash: bool
) -> None:
    topologies = [gathering(kind, repartition, emit, hours) for emit, hours, _, _ in versions]
    parts, disks = [records for _, _, records, _ in versions], [disk for *_, disk in versions]
    parts[-1] = [*parts[-1], *LAST]
    alone = [topologies[-1]] * len(versions)
    assert last_of(topologies, parts, disks, crash) == last_of(alone, parts, disks, False)
