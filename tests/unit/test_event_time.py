"""Event times with bounds: what is too far ahead, and how far stream time stays behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import ProcessingError, Processor, Topology, TopologyError, dead_letter, event_time, serde, stores
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
NOW = 1_700_000_000_000
HOUR = 3_600_000
Seen = list[tuple[str, int, int]]


def watching(seen: Seen) -> Callable[[], Processor[Any, Any, Any, Any]]:
    class ClusterWatch(Processor[Any, Any, Any, Any]):
        def process(self, key: Any, value: Any) -> None:
            seen.append((str(value), self.context.timestamp - NOW, self.context.stream_time - NOW))
            self.context.forward(key, value)

    return ClusterWatch


def bounded(seen: Seen, **options: Any) -> Topology:
    topology = Topology("app")
    times = event_time(**{"future": timedelta(hours=1), **options})
    topology.stream("in", key=TEXT, value=TEXT, timestamp=times).process(watching(seen)).to("out", key=TEXT, value=TEXT)
    return topology


def pipe(driver: TopologyTestDriver, *times: int, topic: str = "in", partition: int | None = None) -> None:
    for number, time in enumerate(times):
        driver.input(topic).pipe("k", f"{topic}{number}", timestamp=NOW + time, partition=partition)


# -- too far ahead -----------------------------------------------------------------------------------------


def test_a_time_beyond_the_bound_is_dropped_and_moves_nothing() -> None:
    seen: Seen = []
    with TopologyTestDriver(bounded(seen), start=NOW) as driver:
        pipe(driver, 5, HOUR, HOUR + 1, 10 * HOUR, 7)
        assert seen == [("in0", 5, 5), ("in1", HOUR, HOUR), ("in4", 7, HOUR)]
        assert driver.status().dropped == 2
        assert driver.status().failed == 0
        assert len(driver.output("out")) == 3


def test_the_bound_moves_with_the_wall_clock() -> None:
    seen: Seen = []
    with TopologyTestDriver(bounded(seen), start=NOW) as driver:
        pipe(driver, HOUR + 1)
        driver.advance(timedelta(milliseconds=1))
        pipe(driver, HOUR + 1, HOUR + 2)
        assert seen == [("in0", HOUR + 1, HOUR + 1)]


def test_clamp_gives_the_latest_time_that_is_allowed() -> None:
    seen: Seen = []
    with TopologyTestDriver(bounded(seen, on_future="clamp"), start=NOW) as driver:
        pipe(driver, 10 * HOUR, 7)
        assert seen == [("in0", HOUR, HOUR), ("in1", 7, HOUR)]
        assert [record.timestamp - NOW for record in driver.output("out")] == [HOUR, 7]


def test_fail_stops_and_says_what_to_do() -> None:
    with TopologyTestDriver(bounded([], on_future="fail"), start=NOW) as driver:
        pipe(driver, 1)
        with pytest.raises(ProcessingError, match=r"'in' failed believing.*offset 1.*ahead of the wall clock.*'drop'"):
            pipe(driver, 2 * HOUR)


def test_a_dead_letter_is_written_and_nothing_else() -> None:
    seen: Seen = []
    with TopologyTestDriver(bounded(seen, on_future=dead_letter("future")), start=NOW) as driver:
        pipe(driver, 1, 2 * HOUR, 3)
        assert [value for value, _, _ in seen] == ["in0", "in2"]
        letter = driver.output("future").read()
        assert (letter.key, letter.value) == (b"k", b"in1")
        assert ("streamstate.error.error", b"ValueError") in letter.headers
        assert (driver.status().failed, driver.status().dropped) == (1, 0)
        assert len(driver.output("out")) == 2


def test_the_time_of_a_field_or_a_function_is_bounded_too() -> None:
    for of in ("at", lambda key, value: value["at"]):
        topology = Topology("app")
        times = event_time(of, future=timedelta(0))
        topology.stream("in", key=TEXT, value=serde.json(), timestamp=times).to("out")
        with TopologyTestDriver(topology, start=NOW) as driver:
            driver.input("in").pipe("k", {"at": NOW})
            driver.input("in").pipe("k", {"at": NOW + 1})
            assert [record.timestamp for record in driver.output("out")] == [NOW]


def test_it_does_not_hold_up_what_is_behind_it_in_a_task_with_two_inputs() -> None:
    seen: Seen = []
    topology = Topology("app")
    times = event_time(future=timedelta(hours=1))
    left = topology.stream("left", key=TEXT, value=TEXT, timestamp=times)
    left.merge(topology.stream("right", key=TEXT, value=TEXT)).process(watching(seen))
    with TopologyTestDriver(topology, start=NOW) as driver:
        # All are there before the task looks.
        for topic, name, time in (("left", "far", 9 * HOUR), ("left", "a", 1), ("right", "b", 2), ("right", "c", 3)):
            driver.broker.append(topic, key=b"k", value=name.encode(), timestamp=NOW + time)
        driver.advance(timedelta(0))
    assert [value for value, _, _ in seen] == ["a", "b", "c"]


def test_what_failed_records_undo_is_not_touched_by_it() -> None:
    topology = Topology("app")
    times = event_time(future=timedelta(hours=1))
    stream = topology.stream("in", key=TEXT, value=TEXT, timestamp=times, on_error="continue")
    stream.group_by_key().count(store="counts").to_stream().to("out")
    with TopologyTestDriver(topology, start=NOW) as driver:
        for time in (1, 2 * HOUR, 2):
            driver.broker.append("in", key=b"k", value=b"x", timestamp=NOW + time)
        driver.advance(timedelta(0))
        assert driver.output("out").values() == [1, 2]


def test_a_table_whose_topic_does_not_say_all_has_a_changelog_of_its_own() -> None:
    topology = Topology("app")
    times = event_time(future=timedelta(hours=1))
    table = topology.table("in", key=TEXT, value=TEXT, timestamp=times, store="rows")
    table.to_stream().to("out")
    config = {"cleanup.policy": "compact"}
    with TopologyTestDriver(topology, start=NOW, topic_config=config) as driver:
        driver.input("in").pipe("k", "kept", timestamp=NOW)
        driver.input("in").pipe("k", "from the future", timestamp=NOW + 2 * HOUR)
        driver.input("in").pipe("k", None, timestamp=NOW + 3 * HOUR)
        driver.crash(disk="lost")
        assert driver.store("rows").get("k") == "kept"
        assert driver.status().restore.records == 1


# -- out of order ------------------------------------------------------------------------------------------


def test_stream_time_stays_behind_the_highest_event_time() -> None:
    seen: Seen = []
    topology = bounded(seen, out_of_order=timedelta(milliseconds=10))
    with TopologyTestDriver(topology, start=NOW, partitions=2) as driver:
        pipe(driver, 20, 25, 15, 30, partition=0)
        pipe(driver, 5, partition=1)
        # Per partition: the other one's times do not count.
        assert [(time, stream) for _, time, stream in seen] == [(20, 10), (25, 15), (15, 15), (30, 20), (5, -5)]
        driver.crash(disk="lost")
        pipe(driver, 1, partition=0)
        assert seen[-1] == ("in0", 1, 20)


def test_the_bound_reaches_behind_repartition_topics_and_is_the_greatest_of_what_feeds_them() -> None:
    seen: Seen = []
    topology = Topology("app")
    slow = topology.stream("slow", key=TEXT, value=TEXT, timestamp=event_time(out_of_order=timedelta(milliseconds=50)))
    fast = topology.stream("fast", key=TEXT, value=TEXT, timestamp=event_time(out_of_order=timedelta(milliseconds=10)))
    merged = slow.merge(fast).repartition(name="first").repartition(name="second")
    merged.process(watching(seen))
    alone: Seen = []
    plain = topology.stream("plain", key=TEXT, value=TEXT)
    plain.repartition(name="third").process(watching(alone))
    with TopologyTestDriver(topology, start=NOW) as driver:
        pipe(driver, 100, topic="fast")
        pipe(driver, 120, topic="slow")
        pipe(driver, 70, topic="plain")
    assert [stream for _, _, stream in seen] == [50, 70]
    assert alone == [("plain0", 70, 70)]


def test_schedules_follow_stream_time() -> None:
    calls: list[int] = []

    class Timed(Processor[Any, Any, Any, Any]):
        def init(self, context: Any) -> None:
            super().init(context)
            context.schedule(timedelta(milliseconds=100), "stream_time", lambda time: calls.append(time - NOW))

        def process(self, key: Any, value: Any) -> None:
            pass

    topology = Topology("app")
    stream = topology.stream("in", key=TEXT, value=TEXT, timestamp=event_time(out_of_order=timedelta(milliseconds=30)))
    stream.process(Timed, stores=[stores.key_value("unused", key=TEXT, value=TEXT)])
    with TopologyTestDriver(topology) as driver:
        pipe(driver, 30, 129, 130, 229, 230)
    assert calls == [0, 100, 200]


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": 5}, "field name or a function"),
        ({"future": timedelta(-1)}, "future= takes a duration that is not negative"),
        ({"future": 5}, "future= takes a duration"),
        ({"out_of_order": timedelta(-1)}, "out_of_order= takes a duration"),
        ({"on_future": "continue"}, "on_future= takes 'drop', 'clamp', 'fail' or dead_letter"),
    ],
)
def test_bounds_that_are_none(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        event_time(**options)


def test_a_dead_letter_topic_that_is_read_is_refused() -> None:
    topology = Topology("app")
    topology.stream("in", timestamp=event_time(future=timedelta(0), on_future=dead_letter("in"))).to("out")
    with pytest.raises(TopologyError, match="choose another dead-letter topic"):
        topology.build()
