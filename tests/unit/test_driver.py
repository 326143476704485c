"""The driver: typed records in and out, order, time, transactions, crashes; on both kinds of state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamstate import ProcessingError, Processor, Topology, dead_letter, serde, stores, windows
from streamstate.rocksdb import RocksDisk
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.driver.topics import Record
from streamstate.testing.memory_broker.application import Disk
from streamstate.testing.memory_broker.broker import RecordRefused

pytest_plugins = ["pytester", "streamstate.testing.pytest_plugin"]

TEXT = serde.string()
NUMBER = serde.long()


@pytest.fixture(params=["memory", "rocksdb"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk | RocksDisk:
    return Disk() if request.param == "memory" else RocksDisk(tmp_path / "state")


def counting(*, repartition: bool = False, emit: Any = "update") -> Topology:
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT)
    grouped = words.group_by(lambda key, value: value, key=TEXT) if repartition else words.group_by_key()
    grouped.count(store="counts").to_stream(emit=emit).to("out")
    return topology


def changelog_of(driver: TopologyTestDriver) -> list[tuple[Any, Any]]:
    output = driver.output("app-counts-changelog", key=TEXT, value=serde.bytes_())
    return [(record.key, record.value and record.value[9:]) for record in output]


# -- records in and out ------------------------------------------------------------------------------------


def test_records_are_typed_on_both_sides() -> None:
    topology = Topology("app")
    topology.stream("in", key=TEXT, value=NUMBER).map_values(lambda n: n and n + 1).to("out", value=NUMBER)
    with TopologyTestDriver(topology) as driver:
        numbers = driver.input("in", key=TEXT, value=NUMBER)
        numbers.pipe("a", 1, timestamp=5, headers=[("h", b"1"), ("none", None)])
        numbers.pipe(None, 2, timestamp=datetime(2013, 1, 1, 5))
        numbers.pipe("b", None, timestamp=9)
        assert driver.output("out", key=TEXT, value=NUMBER).read_all() == [
            Record("a", 2, 5, (("h", b"1"), ("none", None))),
            Record(None, 3, 1_357_016_400_000),
            Record("b", None, 9),
        ]


def test_serdes_are_those_of_the_topology_unless_told() -> None:
    with TopologyTestDriver(counting()) as driver:
        driver.input("in").pipe("a", "x")
        driver.input("in", key=serde.bytes_(), value=serde.bytes_()).pipe(b"a", b"y")
        assert driver.output("out").pairs() == [("a", 1), ("a", 2)]
        assert driver.output("out", key=serde.bytes_(), value=serde.bytes_()).read().value == bytes(7) + b"\x01"


def test_times_come_from_the_wall_clock_or_in_steps() -> None:
    with TopologyTestDriver(counting(), start=datetime(2024, 1, 1)) as driver:
        driver.input("in").pipe("a", "x")
        driver.advance(timedelta(seconds=2))
        driver.input("in").pipe("b", "x")
        stepped = driver.input("in", start=100, step=timedelta(milliseconds=10))
        stepped.pipe_all([("c", "x"), ("d", "x")])
        stepped.pipe("e", "x", timestamp=7)
        stepped.pipe("f", "x")
        times = [record.timestamp for record in driver.output("out")]
    assert times == [1_704_067_200_000, 1_704_067_202_000, 100, 110, 7, 120]


def test_every_reader_of_a_topic_reads_all_of_it_once() -> None:
    with TopologyTestDriver(counting()) as driver:
        first = driver.output("out")
        assert not first
        driver.input("in").pipe_all([("a", "1"), ("b", "2"), ("a", "3")])
        assert (len(first), first.read().key, len(first)) == (3, "a", 2)
        assert first.newest() == {"a": 2, "b": 1}
        assert first.read_all() == []
        with pytest.raises(LookupError, match="'out' has no further record"):
            first.read()
        assert driver.output("out").values() == [1, 1, 2]


def test_topics_are_those_of_the_topology_and_those_named() -> None:
    topology = Topology("app")
    topology.stream("in", key=TEXT, value=TEXT).to(lambda key, value: value)
    with TopologyTestDriver(topology, topics=["north"]) as driver:
        driver.input("in").pipe("a", "north")
        assert driver.output("north", key=TEXT, value=TEXT).pairs() == [("a", "north")]
        with pytest.raises(LookupError, match=r"no topic 'south', but in, north.*topics=\['south'\]"):
            driver.output("south")
        with pytest.raises(LookupError, match="no topic 'elsewhere'"):
            driver.input("elsewhere")
        # As on a broker: nothing creates a topic by writing to it.
        with pytest.raises(ProcessingError, match="does not exist"):
            driver.input("in").pipe("a", "south")


def test_topics_take_any_event_time_unless_configured() -> None:
    far = datetime(2100, 1, 1)
    with TopologyTestDriver(counting()) as driver:
        driver.input("in").pipe("a", "x", timestamp=far)
        assert driver.output("out").read().timestamp == 4_102_444_800_000
    hour = {"message.timestamp.after.max.ms": "3600000"}
    with TopologyTestDriver(counting(), topic_config=hour) as driver, pytest.raises(RecordRefused):
        driver.input("in").pipe("a", "x", timestamp=far)


# -- order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_record_is_done_with_before_the_next_one_over_topics_and_hops(partitions: int) -> None:
    seen: list[str] = []
    topology = Topology("app")
    left = topology.stream("left", key=TEXT, value=TEXT)
    right = topology.stream("right", key=TEXT, value=TEXT)
    hop = left.select_key(lambda key, value: value).repartition(name="hop", key=TEXT)
    hop.select_key(lambda key, value: key + "!").repartition(name="second", key=TEXT).for_each(
        lambda key, value: seen.append(f"left {value}")
    )
    right.for_each(lambda key, value: seen.append(f"right {value}"))
    with TopologyTestDriver(topology, partitions=partitions) as driver:
        for number in range(6):
            driver.input("left" if number % 2 else "right").pipe(f"k{number}", str(number), timestamp=100 - number)
    assert seen == ["right 0", "left 1", "right 2", "left 3", "right 4", "left 5"]


def test_outputs_come_in_the_order_of_writing_over_partitions() -> None:
    topology = Topology("app")
    topology.stream("in", key=TEXT, value=TEXT).flat_map(lambda key, value: [(c, c) for c in value]).to(
        "out", key=TEXT, value=TEXT
    )
    with TopologyTestDriver(topology, partitions={"out": 4}) as driver:
        driver.input("in").pipe_all([("k", "zab"), ("k", "cyd")])
        records = driver.output("out").read_all()
    assert "".join(str(record.value) for record in records) == "zabcyd"
    assert len({record.partition for record in records}) > 1


def test_an_input_partition_is_that_of_the_key_or_the_one_named() -> None:
    where: list[tuple[Any, int | None]] = []

    class Where(Processor[str, str, str, str]):
        def process(self, key: str, value: str) -> None:
            where.append((key, self.context.partition))

    topology = Topology("app")
    topology.stream("in", key=TEXT, value=TEXT).process(Where)
    with TopologyTestDriver(topology, partitions=2) as driver:
        topic = driver.input("in")
        topic.pipe("a", "x", partition=0)
        topic.pipe("a", "x", partition=1)
        topic.pipe("a", "x")
        topic.pipe(None, "x")
        topic.pipe(None, "x")
    assert where == [("a", 0), ("a", 1), ("a", 0), (None, 0), (None, 1)]


def test_a_topology_that_feeds_itself_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamstate.testing.driver.driver.MAX_TURNS", 50)
    topology = Topology("app")
    topology.stream("in").to("in")
    with TopologyTestDriver(topology) as driver, pytest.raises(RuntimeError, match="does not come to rest"):
        driver.input("in").pipe(b"a", b"x")


# -- state -------------------------------------------------------------------------------------------------


def test_a_store_of_several_partitions_is_shown_whole(disk: Disk | RocksDisk) -> None:
    with TopologyTestDriver(counting(), partitions=3, disk=disk) as driver:
        driver.input("in").pipe_all([(key, "x") for key in "dabcaa"])
        counts = driver.store("counts")
        assert (counts.get("a"), counts.get("none")) == (3, None)
        assert list(counts.all()) == [("a", 3), ("b", 1), ("c", 1), ("d", 1)]
        assert list(counts.range("b", "c", reverse=True)) == [("c", 1), ("b", 1)]
        assert list(counts.prefix_scan(b"d")) == [("d", 1)]
        where = counts.partition_of("a")
        assert driver.store("counts", partition=where).get("a") == 3
        assert counts.partition_of("none") is None
        with pytest.raises(LookupError, match="no partition 9, but 0, 1, 2"):
            driver.store("counts", partition=9)
        with pytest.raises(LookupError, match="no store 'count', but counts"):
            driver.store("count")


def test_a_store_can_be_filled_before_the_first_record() -> None:
    with TopologyTestDriver(counting()) as driver:
        driver.store("counts").put("a", 41)
        driver.input("in").pipe("a", "x")
        assert driver.output("out").pairs() == [("a", 42)]
        assert changelog_of(driver) == [("a", NUMBER.serialize(42))]


def test_a_windowed_store_is_looked_into_by_windowed_keys(disk: Disk | RocksDisk) -> None:
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT).group_by_key()
    words.windowed_by(windows.tumbling(timedelta(milliseconds=10), grace=timedelta(hours=1))).count(store="counts")
    with TopologyTestDriver(topology, partitions=2, disk=disk) as driver:
        for key, time in (("a", 1), ("c", 3), ("a", 12), ("a", 4)):
            driver.input("in").pipe(key, "x", timestamp=time)
        counts = driver.store("counts")
        assert counts.get(windows.Windowed("a", 0, 10)) == 2
        assert dict(counts.all()) == {("a", 0, 10): 2, ("c", 0, 10): 1, ("a", 10, 20): 1}
        driver.crash(disk="lost")
        assert dict(driver.store("counts", committed=True).all()) == {
            ("a", 0, 10): 2,
            ("c", 0, 10): 1,
            ("a", 10, 20): 1,
        }


def test_a_versioned_store_is_looked_into_as_of_a_time() -> None:
    topology = Topology("app")
    topology.table("in", key=TEXT, value=TEXT, store="rows", versioned=timedelta(minutes=5))
    for partitions in (1, 2):
        with TopologyTestDriver(topology, partitions=partitions) as driver:
            for value, time in (("x", 10), ("y", 20), ("z", 15)):
                driver.input("in").pipe("a", value, timestamp=time)
            rows = driver.store("rows")
            assert (rows.get("a").value, rows.get("a", as_of=16).value) == ("y", "z")


# -- time --------------------------------------------------------------------------------------------------


class Ticking(Processor[str, str, str, int]):
    def init(self, context: Any) -> None:
        super().init(context)
        self.seen = context.store("seen")
        context.schedule(timedelta(minutes=1), "wall_clock", self.tick)

    def process(self, key: str, value: str) -> None:
        self.seen.put(key, (self.seen.get(key) or 0) + 1)

    def tick(self, time_ms: int) -> None:
        for key, count in self.seen.all():
            self.context.forward(key, count)


def ticking() -> Topology:
    topology = Topology("app")
    store = stores.key_value("seen", key=TEXT, value=NUMBER)
    topology.stream("in", key=TEXT, value=TEXT).process(Ticking, stores=[store]).to("out", key=TEXT, value=NUMBER)
    return topology


def test_the_wall_clock_moves_only_when_told() -> None:
    with TopologyTestDriver(ticking()) as driver:
        out = driver.output("out")
        driver.input("in").pipe_all([("a", "x"), ("a", "x")])
        driver.advance(timedelta(seconds=59))
        assert not out
        driver.advance(timedelta(seconds=1))
        assert out.pairs() == [("a", 2)]
        driver.advance(timedelta(hours=1))
        assert out.pairs() == [("a", 2)]


def test_no_session_and_no_transaction_times_out() -> None:
    with TopologyTestDriver(counting(repartition=True), auto_commit=False) as driver:
        driver.input("in").pipe("a", "x")
        driver.advance(timedelta(days=400))
        driver.commit()
        assert driver.output("out").pairs() == [("x", 1)]
        assert driver.status().rollbacks == 0


# -- transactions ------------------------------------------------------------------------------------------


def test_without_auto_commit_readers_see_nothing_before_the_commit(disk: Disk | RocksDisk) -> None:
    with TopologyTestDriver(counting(), auto_commit=False, disk=disk) as driver:
        committed, every = driver.output("out"), driver.output("out", committed=False)
        driver.input("in").pipe_all([("a", "x"), ("a", "y")])
        assert (committed.pairs(), every.pairs()) == ([], [("a", 1), ("a", 2)])
        assert driver.store("counts").get("a") == 2
        assert driver.store("counts", committed=True).get("a") is None
        driver.commit()
        assert committed.pairs() == [("a", 1), ("a", 2)]
        assert driver.store("counts", committed=True).get("a") == 2
        # One record per key and commit.
        assert changelog_of(driver) == [("a", NUMBER.serialize(2))]


def test_emit_at_commit_follows_the_commits() -> None:
    with TopologyTestDriver(counting(emit="commit"), auto_commit=False) as driver:
        driver.input("in").pipe_all([("a", "x"), ("b", "x"), ("a", "x")])
        driver.commit()
        driver.input("in").pipe("a", "x")
        driver.commit()
        assert driver.output("out").pairs() == [("a", 2), ("b", 1), ("a", 3)]


def test_a_commit_can_stop_at_the_next_hop() -> None:
    with TopologyTestDriver(counting(repartition=True), auto_commit=False) as driver:
        driver.input("in").pipe("a", "x")
        assert driver.store("counts").get("x") is None
        driver.commit(hops=False)
        assert driver.store("counts").get("x") == 1
        assert driver.output("out").pairs() == []
        driver.commit(hops=False)
        assert driver.output("out").pairs() == [("x", 1)]


def test_an_abort_drops_what_is_uncommitted_and_does_it_again(disk: Disk | RocksDisk) -> None:
    calls: list[str] = []
    topology = counting()
    topology.stream("other", key=TEXT, value=TEXT).peek(lambda key, value: calls.append(key)).to("copy")
    with TopologyTestDriver(topology, auto_commit=False, disk=disk) as driver:
        driver.input("in").pipe("a", "x")
        driver.commit()
        driver.input("in").pipe("a", "x")
        driver.input("other").pipe("b", "x")
        driver.abort()
        assert driver.store("counts", committed=True).get("a") == 1
        assert driver.store("counts").get("a") == 2
        driver.commit()
        assert calls == ["b", "b"]
        assert driver.output("out").pairs() == [("a", 1), ("a", 2)]
        assert driver.output("copy").pairs() == [("b", "x")]
        assert driver.output("copy", committed=False).pairs() == [("b", "x"), ("b", "x")]
        assert driver.status().rollbacks == 1


def test_an_abort_of_nothing_is_nothing() -> None:
    with TopologyTestDriver(counting()) as driver:
        driver.input("in").pipe("a", "x")
        driver.abort()
        assert driver.status().rollbacks == 0


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("partitions", [1, 3])
def test_a_crash_loses_nothing_and_doubles_nothing(disk: Disk | RocksDisk, lost: bool, partitions: int) -> None:
    with TopologyTestDriver(counting(repartition=True), partitions=partitions, auto_commit=False, disk=disk) as driver:
        topic = driver.input("in")
        topic.pipe_all([("k", "a"), ("k", "b"), ("k", "a")])
        driver.commit()
        topic.pipe_all([("k", "a"), ("k", "c")])
        driver.commit(hops=False)
        topic.pipe("k", "b")
        driver.crash(disk="lost" if lost else "kept")
        restored = driver.status().restore.records
        assert restored == (2 if lost else 0)
        assert dict(driver.store("counts", committed=True).all()) == {"a": 2, "b": 1}
        driver.commit()
        assert dict(driver.store("counts").all()) == {"a": 3, "b": 2, "c": 1}
        assert sorted(driver.output("out").pairs(), key=str) == [
            ("a", 1),
            ("a", 2),
            ("a", 3),
            ("b", 1),
            ("b", 2),
            ("c", 1),
        ]


def test_a_restart_commits_and_goes_on(disk: Disk | RocksDisk) -> None:
    with TopologyTestDriver(counting(), auto_commit=False, disk=disk) as driver:
        driver.input("in").pipe("a", "x")
        driver.restart()
        assert driver.output("out").pairs() == [("a", 1)]
        driver.restart(disk="lost")
        assert driver.store("counts", committed=True).get("a") == 1


# -- failures ----------------------------------------------------------------------------------------------


def test_a_failed_record_ends_the_worker_as_in_production() -> None:
    topology = Topology("app")
    topology.stream("in", key=TEXT, value=TEXT).map_values(int).to("out", value=NUMBER)
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("a", "1")
        with pytest.raises(ProcessingError, match=r"'in.map_values' failed at topic 'in'.*offset 1"):
            driver.input("in").pipe("a", "one")
        with pytest.raises(RuntimeError, match=r"runs no worker: it ended with.*restart\(\)"):
            driver.input("in").pipe("a", "2")
        with pytest.raises(ProcessingError):
            driver.restart()
        assert driver.output("out").pairs() == [("a", 1)]


def test_policies_hold() -> None:
    topology = Topology("app")
    lines = topology.stream("in", key=TEXT, value=TEXT, on_error=dead_letter("bad"))
    lines.map_values(int).to("out", value=NUMBER)
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe_all([("a", "1"), ("a", "one"), ("a", "2")])
        assert driver.output("out").values() == [1, 2]
        letter = driver.output("bad").read()
        assert (letter.key, letter.value) == (b"a", b"one")
        assert ("streamstate.error.offset", b"1") in letter.headers
        assert driver.status().failed == 1


def test_a_closed_driver_says_so() -> None:
    driver = TopologyTestDriver(counting())
    driver.close()
    driver.close()
    with pytest.raises(RuntimeError, match="it is closed"):
        driver.input("in").pipe("a", "x")


# -- the fixture -------------------------------------------------------------------------------------------


def test_the_fixture_makes_drivers(topology_driver: Callable[..., TopologyTestDriver]) -> None:
    driver = topology_driver(counting(), partitions=2)
    driver.input("in").pipe("a", "x")
    assert driver.output("out").pairs() == [("a", 1)]


def test_the_fixture_closes_them(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["pytester", "streamstate.testing.pytest_plugin"]')
    pytester.makepyfile(
        """
        from streamstate import Topology

        made = []

        def test_makes(topology_driver):
            topology = Topology("t")
            topology.stream("in").to("out")
            made.append(topology_driver(topology))
            made[0].input("in").pipe(b"a", b"x")
            assert made[0].output("out").pairs() == [(b"a", b"x")]

        def test_closed():
            assert made[0]._worker is None
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
