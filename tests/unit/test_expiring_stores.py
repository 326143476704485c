"""Time to live: in processors and aggregations, over restarts, in the changelog."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamstate import Processor, ProcessorContext, Topology, TopologyError, aggregates, serde, stores
from streamstate.graph.describe import describe_text
from streamstate.rocksdb.scratch import RocksDisk
from streamstate.state.spec import StoreSpec
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.memory_broker.application import MemoryApplication
from tests.unit.application_support import Run

TEXT, LONG = serde.string(), serde.long()
SECOND = timedelta(seconds=1)
# In 2013, where wall-clock time has nothing to say.
START_MS = 1_357_000_000_000


class FirstSeen(Processor[str, str, str, str]):
    """Passes on what it has not seen within a second."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.seen = context.store("seen")

    def process(self, key: str, value: str) -> None:
        if self.seen.put_if_absent(value, 1) is None:
            self.context.forward(key, value)


def first_seen(**options: Any) -> Topology:
    topology = Topology("t")
    seen = stores.key_value("seen", key=TEXT, value=LONG, ttl=SECOND)
    stream = topology.stream("in", key=TEXT, value=TEXT, **options)
    stream.process(FirstSeen, stores=[seen]).to("out", key=TEXT, value=TEXT)
    return topology


@pytest.mark.parametrize("disk", ["kept", "lost"])
@pytest.mark.parametrize("on_error", ["fail", "continue"])
@pytest.mark.parametrize("durable", [False, True])
def test_an_entry_lives_for_its_time_also_over_a_crash(disk: Any, on_error: Any, durable: bool, tmp_path: Path) -> None:
    kept = RocksDisk(tmp_path) if durable else None
    with TopologyTestDriver(first_seen(on_error=on_error), disk=kept) as driver:
        records = driver.input("in")
        records.pipe("k", "a", timestamp=START_MS)
        driver.crash(disk=disk)
        # Reading does not prolong it.
        records.pipe("k", "a", timestamp=START_MS + 999)
        assert driver.store("seen").get("a") == 1
        driver.crash(disk=disk)
        records.pipe("k", "b", timestamp=START_MS + 1_000)
        assert driver.store("seen").get("a") is None
        assert list(driver.store("seen").all()) == [("b", 1)]
        driver.crash(disk=disk)
        records.pipe("k", "a", timestamp=START_MS + 1_000)
        assert driver.output("out", key=TEXT, value=TEXT).values() == ["a", "b", "a"]


def test_what_has_expired_is_deleted_in_the_changelog_with_the_records_that_made_it_expire() -> None:
    run = Run(first_seen())
    run.send(b"a", timestamp=START_MS)
    run.ticks()
    # An entry, and its place in order.
    assert len(run.state("seen")) == 2
    run.send(b"b", timestamp=START_MS + 60_000)
    run.ticks()
    changelog = run.broker.read("app-seen-changelog")
    assert [(key[:1] + key[-1:], record.value() is None) for record in changelog if (key := record.key())] == [
        (b"\x00a", False),
        (b"\x01a", False),
        (b"\x00b", False),
        (b"\x01b", False),
        (b"\x00a", True),
        (b"\x01a", True),
    ]
    run.restart(close=False)
    run.ticks()
    [task] = run.worker.assignment.tasks.values()
    assert task.backend is not None
    assert [key[-1:] for key, _ in task.backend.scan("seen", None, None, False)] == [b"b", b"b"]


def test_a_store_without_changes_has_nothing_to_commit() -> None:
    run = Run(first_seen())
    run.send(b"a", timestamp=START_MS)
    run.ticks()
    run.send(b"a", b"a", timestamp=START_MS + 500)
    run.ticks()
    assert run.offset() == 3
    assert len(run.broker.read("app-seen-changelog")) == 2


def test_a_write_that_is_older_than_the_ttl_writes_nothing_that_lives() -> None:
    with TopologyTestDriver(first_seen()) as driver:
        for value, behind in (("a", 0), ("b", 1_000), ("b", 1_000), ("c", 999), ("c", 999)):
            driver.input("in").pipe("k", value, timestamp=START_MS - behind)
        assert driver.output("out", key=TEXT, value=TEXT).values() == ["a", "b", "b", "c"]
        assert [value for value, _ in driver.store("seen").all()] == ["a", "c"]


def test_the_wall_clock_writes_as_of_the_stream_time() -> None:
    class Tick(Processor[str, str, str, str]):
        def init(self, context: ProcessorContext[str, str]) -> None:
            super().init(context)
            context.schedule(SECOND, "wall_clock", lambda time_ms: context.store("seen").put("tick", time_ms))

        def process(self, key: str, value: str) -> None:
            self.context.store("seen").put(value, 0)

    topology = Topology("t")
    seen = stores.key_value("seen", key=TEXT, value=LONG, ttl=SECOND)
    topology.stream("in", key=TEXT, value=TEXT).process(Tick, stores=[seen])
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("k", "a", timestamp=START_MS)
        driver.advance(SECOND)
        assert [key for key, _ in driver.store("seen").all()] == ["a", "tick"]
        driver.input("in").pipe("k", "b", timestamp=START_MS + 1_000)
        assert [key for key, _ in driver.store("seen").all()] == ["b"]


@pytest.mark.parametrize("kind", ["count", "reduce", "aggregate", "named", "cogroup"])
def test_an_aggregation_forgets(kind: str) -> None:
    topology = Topology("t")
    grouped = topology.stream("in", key=TEXT, value=LONG).group_by_key()
    made: Any
    if kind == "count":
        made = grouped.count(store="s", ttl=SECOND)
    elif kind == "reduce":
        made = grouped.reduce(lambda one, other: one + other, store="s", ttl=SECOND)
    elif kind == "aggregate":
        made = grouped.aggregate(
            initializer=int, aggregator=lambda key, value, total: total + value, value=LONG, store="s", ttl=SECOND
        )
    elif kind == "cogroup":
        both = grouped.cogroup(lambda key, value, total: total + value)
        made = both.aggregate(initializer=int, value=LONG, store="s", ttl=SECOND)
    else:
        made = grouped.aggregate(n=aggregates.count(), store="s", ttl=SECOND).map_values(lambda row: row["n"])
    made.to_stream().to("out", key=TEXT, value=LONG)
    with TopologyTestDriver(topology) as driver:
        # The greatest time of a key's records counts, not that of the last.
        for behind in (0, 900, -1, -999, -1_999):
            driver.input("in").pipe("k", 1, timestamp=START_MS - behind)
        assert driver.output("out", key=TEXT, value=LONG).values() == [1, 2, 3, 4, 1]


def test_the_description_says_so() -> None:
    assert "lives 1000 ms, changelog app-seen-changelog" in describe_text(first_seen().build(), "app")


def test_rows_that_expire_are_not_grouped() -> None:
    table = Topology("t").stream("in", key=TEXT, value=LONG).group_by_key().count(store="s", ttl=SECOND)
    with pytest.raises(TopologyError, match="would stay in theirs for ever"):
        table.filter(lambda key, value: True).group_by(lambda key, value: value, key=LONG)


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(microseconds=999), -SECOND, 5])
def test_a_ttl_that_cannot_be(ttl: Any) -> None:
    with pytest.raises(TopologyError, match="the ttl of store 's' is a duration of one millisecond or more"):
        stores.key_value("s", key=TEXT, value=LONG, ttl=ttl)
    with pytest.raises(TopologyError, match="the ttl of store 's'"):
        Topology("t").stream("in", key=TEXT).group_by_key().count(store="s", ttl=ttl)


# -- stores that change ---------------------------------------------------------------------------------------------


class Keep(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        self.context.store("seen").put(value, 1)


def kept_in(store: StoreSpec) -> Topology:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).process(Keep, stores=[store])
    return topology


def change(run: Run, store: StoreSpec, *, local: bool) -> None:
    """End the application and start it again with another topology; ``local``: where its state is."""
    run.workers.pop("w").close()
    disks = run.app.disks
    run.app = MemoryApplication(kept_in(store).build(), run.broker, run.clock, run.app.settings)
    if local:
        run.app.disks.update(disks)


PLAIN = stores.key_value("seen", key=TEXT, value=LONG)
LIVING = stores.key_value("seen", key=TEXT, value=LONG, ttl=SECOND)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (PLAIN, LIVING, "its kind is key_value without ttl, the topology says key_value with ttl"),
        (LIVING, PLAIN, "its kind is key_value with ttl, the topology says key_value without ttl"),
        (
            PLAIN,
            stores.list_("seen", key=TEXT, value=LONG),
            "its kind is key_value without ttl, the topology says list",
        ),
    ],
)
def test_a_store_does_not_become_one_of_another_kind(
    before: StoreSpec, after: StoreSpec, message: str, local: bool
) -> None:
    run = Run(kept_in(before))
    run.send(b"a", timestamp=START_MS)
    run.ticks()
    with pytest.raises(TopologyError, match=message):
        change(run, after, local=local)


@pytest.mark.parametrize("longer", [False, True])
def test_a_time_to_live_may_change(longer: bool) -> None:
    short, long = SECOND, timedelta(minutes=10)
    run = Run(kept_in(replace(LIVING, ttl_ms=(short if longer else long) // timedelta(milliseconds=1))))
    for number in range(40):
        run.send(b"v%d" % number, timestamp=START_MS + number * 20)
    run.ticks()
    ttl_ms = (long if longer else short) // timedelta(milliseconds=1)
    change(run, replace(LIVING, ttl_ms=ttl_ms), local=True)

    def there() -> list[bytes]:
        [task] = run.worker.assignment.tasks.values()
        return sorted(key for key, _ in task.stores["seen"].scan(None, None) if key.startswith(b"v"))

    for now in (START_MS + 780 + ttl_ms - 300, START_MS + 780 + 2 * ttl_ms):
        run.send(b"now", timestamp=now)
        run.ticks(8)
        run.send(b"again", timestamp=now)
        run.ticks(8)
        live = sorted(b"v%d" % number for number in range(40) if START_MS + number * 20 + ttl_ms > now)
        assert there() == live
    [task] = run.worker.assignment.tasks.values()
    assert task.backend is not None
    keys = [key for key, _ in task.backend.scan("seen", None, None, False)]
    assert [key for key in keys if b"v" in key] == []
