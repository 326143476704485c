"""Joins of streams through topologies: names, serdes, repartition topics, what is refused, what is sent when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import Topology, TopologyError, serde, windows
from streamstate.graph.describe import describe_json, describe_text
from streamstate.graph.plan import plan_topics
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
NUMBER = serde.long()


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


def two(topology: Topology) -> tuple[Any, Any]:
    return topology.stream("left", key=TEXT, value=TEXT), topology.stream("right", key=TEXT, value=NUMBER)


def pair(left: Any, right: Any) -> str:
    return f"{left}+{right}"


class Joined:
    """A join of two topics into ``out``, in the driver."""

    def __init__(self, kind: str, within: windows.JoinWindows) -> None:
        topology = Topology("t")
        left, right = two(topology)
        getattr(left, kind)(right, pair, within=within, store="j").to("out", value=TEXT)
        self.driver = TopologyTestDriver(topology)
        self._out = self.driver.output("out")

    def pipe(self, topic: str, key: str, value: Any, time: int) -> list[tuple[Any, Any, int]]:
        self.driver.input(topic).pipe(key, value, timestamp=time)
        return [(record.key, record.value, record.timestamp) for record in self._out.read_all()]


def test_an_outer_join_lets_each_side_go_when_its_own_window_is_over() -> None:
    joined = Joined("outer_join", windows.join(before=ms(5), after=ms(20)))
    assert joined.pipe("left", "0", "A0", 29) == []
    assert joined.pipe("left", "1", "A1", 30) == []
    assert joined.pipe("right", "2", 12, 31) == []
    assert joined.pipe("right", "3", 13, 36) == []
    assert joined.pipe("right", "4", 14, 37) == [("2", "None+12", 31)]
    joined.driver.crash(disk="lost")
    assert joined.pipe("right", "5", 15, 50) == [("0", "A0+None", 29), ("3", "None+13", 36), ("4", "None+14", 37)]


def test_a_left_join_without_an_after_waits_for_nothing_but_equal_times() -> None:
    joined = Joined("left_join", windows.join(before=ms(100), after=ms(0)))
    assert joined.pipe("left", "0", "A0", 1000) == []
    assert joined.pipe("left", "1", "A1", 1001) == [("0", "A0+None", 1000)]
    # A late record of the other side still joins what is kept.
    assert joined.pipe("right", "0", 7, 999) == [("0", "A0+7", 1000)]
    assert joined.pipe("right", "1", 8, 1001) == [("1", "A1+8", 1001)]
    assert joined.pipe("left", "9", "A9", 1200) == []


def test_without_any_room_records_of_one_time_join_and_each_waits_for_itself() -> None:
    joined = Joined("left_join", windows.join(ms(0)))
    assert joined.pipe("left", "a", "A", 5) + joined.pipe("left", "a", "B", 5) == []
    assert joined.pipe("right", "a", 1, 5) == [("a", "A+1", 5), ("a", "B+1", 5)]
    assert joined.pipe("left", "b", "C", 7) + joined.pipe("left", "b", "D", 7) == []
    assert joined.pipe("left", "z", "Z", 8) == [("b", "C+None", 7), ("b", "D+None", 7)]


def test_a_record_whose_window_is_over_when_it_comes_is_sent_alone_at_once() -> None:
    joined = Joined("outer_join", windows.join(ms(10), grace=ms(100)))
    assert joined.pipe("left", "a", "A", 50) == []
    assert joined.pipe("right", "b", 1, 39) == [("b", "None+1", 39)]
    assert joined.pipe("right", "b", 2, 40) == []


def test_keys_that_may_have_changed_go_through_repartition_topics_named_after_the_store() -> None:
    topology = Topology("t")
    left, right = two(topology)
    again = left.select_key(lambda key, value: value)
    other = right.select_key(lambda key, value: str(value))
    again.join(other, pair, within=windows.join(ms(10)), store="j", key=TEXT).to("out", value=TEXT)
    plan = plan_topics(topology.build(), "app", {"left": 3, "right": 2})
    assert [(topic.name, topic.partitions) for topic in plan.internal] == [
        ("app-j-left-repartition", 3),
        ("app-j-right-repartition", 3),
        ("app-j-left-changelog", 3),
        ("app-j-right-changelog", 3),
    ]
    with TopologyTestDriver(topology, partitions=3) as driver:
        driver.input("left").pipe("x", "7", timestamp=1)
        driver.input("right").pipe("y", 7, timestamp=2)
        assert [(record.key, record.value) for record in driver.output("out").read_all()] == [("7", "7+7")]


def test_streams_that_meet_must_be_partitioned_alike() -> None:
    topology = Topology("t")
    left, right = two(topology)
    left.join(right, pair, within=windows.join(ms(10)), store="j").to("out", value=TEXT)
    with pytest.raises(TopologyError, match="must have equally many partitions"):
        plan_topics(topology.build(), "app", {"left": 3, "right": 2})


def test_self_joins_keep_records_once_unless_something_is_sent_alone() -> None:
    for kind, stores in (("join", ["j-left"]), ("left_join", ["j-left", "j-right", "j-waiting"])):
        topology = Topology("t")
        stream = topology.stream("left", key=TEXT, value=TEXT)
        getattr(stream, kind)(stream, pair, within=windows.join(ms(10)), store="j").to("out", value=TEXT)
        assert list(topology.build().stores) == stores
        with TopologyTestDriver(topology) as driver:
            for value, time in (("A", 1), ("B", 5), ("C", 30)):
                driver.input("left").pipe("k", value, timestamp=time)
            values = [record.value for record in driver.output("out").read_all()]
            assert values == ["A+A", "B+A", "A+B", "B+B", "C+C"]


def test_the_description_says_how_far_apart_records_may_be() -> None:
    topology = Topology("t")
    left, right = two(topology)
    left.left_join(right, pair, within=windows.join(before=ms(1), after=ms(2), grace=ms(3)), store="j").for_each(print)
    [part] = describe_json(topology.build(), "app")["subtopologies"]
    [node] = [node for node in part["nodes"] if node["name"] == "j.left_join"]
    assert node["operator"] == "stream_join"
    assert node["within"] == {"before_ms": 1, "after_ms": 2, "grace_ms": 3}
    assert node["alone"] == ["left"]
    assert node["stores"] == ["j-left", "j-right", "j-waiting"]
    assert "within before_ms 1 after_ms 2 grace_ms 3, left records alone too" in describe_text(topology.build(), "app")


def test_stores_show_what_is_kept_and_what_waits() -> None:
    joined = Joined("left_join", windows.join(ms(10)))
    joined.pipe("left", "a", "A", 50)
    joined.pipe("left", "a", "B", 50)
    assert list(joined.driver.store("j-left").all()) == [(("a", 50, 0), "A"), (("a", 50, 1), "B")]
    assert [value for _, value in joined.driver.store("j-waiting").all()] == [(True, "A"), (True, "B")]
    joined.pipe("right", "a", 1, 55)
    assert list(joined.driver.store("j-waiting").all()) == []


def test_what_waited_at_a_commit_and_has_met_since_is_not_sent_alone() -> None:
    topology = Topology("t")
    left, right = two(topology)
    left.left_join(right, pair, within=windows.join(ms(10)), store="j").to("out", value=TEXT)
    with TopologyTestDriver(topology, auto_commit=False) as driver:
        driver.input("left").pipe("a", "A", timestamp=1)
        driver.input("left").pipe("b", "B", timestamp=1)
        driver.commit()
        driver.input("right").pipe("a", 1, timestamp=2)
        driver.input("right").pipe("c", 1, timestamp=50)
        driver.commit()
        assert [record.value for record in driver.output("out").read_all()] == ["A+1", "B+None"]


def test_a_failed_record_takes_back_what_it_had_let_go() -> None:
    topology = Topology("t")
    left = topology.stream("left", key=TEXT, value=TEXT, on_error="continue")
    right = topology.stream("right", key=TEXT, value=NUMBER, on_error="continue")
    joined = left.left_join(right, pair, within=windows.join(ms(10)), store="j")
    joined.to("out", value=TEXT)
    # Reached after the join.
    left.peek(lambda key, value: 1 // (value != "bad")).to("other")
    with TopologyTestDriver(topology) as driver:
        out = driver.output("out")
        for key, value, time in (("a", "A", 1), ("b", "B", 2), ("c", "bad", 100), ("d", "bad", 101)):
            driver.input("left").pipe(key, value, timestamp=time)
        assert out.read_all() == [], "whatever would let them go fails itself"
        driver.input("right").pipe("b", 1, timestamp=12)
        driver.input("left").pipe("d", "D", timestamp=101)
        assert [record.value for record in out.read_all()] == ["A+None", "B+1"]


def test_what_does_not_fit_is_refused() -> None:
    topology = Topology("t")
    left, right = two(topology)
    table = topology.table("rows", key=TEXT, value=TEXT)
    within = windows.join(ms(1))
    elsewhere = Topology("other").stream("right", key=TEXT, value=TEXT)
    for call, said in (
        (lambda: left.join(right, pair), "takes within="),
        (lambda: left.join(right, pair, within=windows.tumbling(ms(1))), "takes within="),
        (lambda: left.join(elsewhere, pair, within=within), "another Topology"),
        (lambda: left.join(table, pair, within=within), "are for joins with a stream"),
        (lambda: left.join("right", pair), "takes a Stream, a Table or a GlobalTable"),
        (lambda: left.outer_join(table, pair, within=within), "takes a Stream"),
        (lambda: left.join(right, None, within=within), "takes a function"),
        (lambda: left.map_values(len).join(right, pair, within=within), "serde of the value"),
        (lambda: left.join(right.map_values(abs), pair, within=within), "other_value="),
    ):
        with pytest.raises(TopologyError, match=said):
            call()  # type: ignore[no-untyped-call]
