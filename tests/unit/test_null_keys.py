"""Records with null keys before repartition topics: left out and counted, unless a join behind takes them (KIP-962)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import Stream, Topology, serde, windows
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
WITHIN = windows.join(timedelta(milliseconds=10))
Side = Stream[Any, Any]


def pair(left: Any, right: Any) -> str:
    return f"{left}+{right}"


class Sides:
    """What a stream may be joined with."""

    def __init__(self, topology: Topology) -> None:
        self.stream: Any = topology.stream("right", key=TEXT, value=TEXT)
        self.table: Any = topology.table("rows", key=TEXT, value=TEXT)
        self.everywhere: Any = topology.global_table("everywhere", key=TEXT, value=TEXT)


def end(stream: Side) -> None:
    stream.for_each(lambda key, value: None)


def key_of(key: Any, value: Any) -> Any:
    return key


def counted(stream: Side) -> Side:
    return stream.group_by_key().count(store="counts").to_stream()


# What follows the repartition topic, and whether that takes null keys.
BEHIND: dict[str, tuple[Callable[[Side, Sides], None], bool]] = {
    "nothing": (lambda s, o: None, False),
    "an aggregation": (lambda s, o: end(counted(s)), False),
    "a join of streams": (lambda s, o: end(s.join(o.stream, pair, within=WITHIN, store="j")), False),
    "a join with a table": (lambda s, o: end(s.join(o.table, pair)), False),
    "a join with a global table": (lambda s, o: end(s.join(o.everywhere, pair, on=key_of)), False),
    "a left join of tables": (lambda s, o: end(s.to_table(store="t").left_join(o.table, pair).to_stream()), False),
    "a left join of streams": (lambda s, o: end(s.left_join(o.stream, pair, within=WITHIN, store="j")), True),
    "the right of a left join": (lambda s, o: end(o.stream.left_join(s, pair, within=WITHIN, store="j")), True),
    "an outer join": (lambda s, o: end(s.outer_join(o.stream, pair, within=WITHIN, store="j")), True),
    "a left join with a table": (lambda s, o: end(s.left_join(o.table, pair)), True),
    "a left join with a global table": (lambda s, o: end(s.left_join(o.everywhere, pair, on=key_of)), True),
    "one after other operators": (
        lambda s, o: end(s.filter(lambda key, value: True).map_values(str).left_join(o.table, pair)),
        True,
    ),
    "one on a branch": (lambda s, o: end(s.split(lambda key, value: False)[0].left_join(o.table, pair)), True),
    "one after a merge": (lambda s, o: end(s.merge(o.stream).left_join(o.table, pair)), True),
    "one behind a further repartition": (
        lambda s, o: end(s.repartition(name="twice", value=TEXT).left_join(o.table, pair)),
        True,
    ),
    "one behind an aggregation": (
        lambda s, o: end(counted(s).map_values(str).left_join(o.table, pair)),
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("on_error", ["fail", "continue"])
def test_repartition_leaves_null_keys_out_unless_a_join_behind_takes_them(behind: str, on_error: Any) -> None:
    follow, taken = BEHIND[behind]
    topology = Topology("t")
    sides = Sides(topology)
    stream = topology.stream("left", key=TEXT, value=TEXT, on_error=on_error).repartition(name="again")
    stream.to("out")
    follow(stream, sides)
    with TopologyTestDriver(topology) as driver:
        driver.input("left").pipe(None, "lost or not", timestamp=1)
        driver.input("left").pipe("a", "kept", timestamp=2)
        assert driver.output("out").values() == (["lost or not", "kept"] if taken else ["kept"])
        internal = [record.key for record in driver.output("t-again-repartition").read_all()]
        assert internal == ([None, b"a"] if taken else [b"a"])
        if not taken:
            assert driver.status().dropped == 1


@pytest.mark.parametrize("via", ["group_by", "select_key", "map", "to_table", "cogroup"])
def test_topics_that_groups_make_leave_them_out_and_count_them(via: str) -> None:
    topology = Topology("t")
    stream = topology.stream("left", key=TEXT, value=TEXT)
    if via == "group_by":
        grouped: Any = stream.group_by(lambda key, value: None if value == "x" else value, key=TEXT)
        grouped.count(store="c")
    elif via == "cogroup":
        grouped = stream.group_by(lambda key, value: None if value == "x" else value, key=TEXT)
        grouped.cogroup(lambda key, value, seen: seen + value).aggregate(initializer=str, value=TEXT, store="c")
    else:
        changed: Any = (
            stream.map(lambda key, value: (None if value == "x" else value, value))
            if via == "map"
            else stream.select_key(lambda key, value: None if value == "x" else value)
        )
        if via == "to_table":
            changed.to_table(key=TEXT, value=TEXT, store="c")
        else:
            changed.group_by_key(key=TEXT, value=TEXT).count(store="c")
    with TopologyTestDriver(topology) as driver:
        driver.input("left").pipe("k", "x")
        driver.input("left").pipe("k", "y")
        assert driver.status().dropped == 1
        (internal,) = [topic for topic in driver.broker.topics() if topic.endswith("-repartition")]
        assert [record.key for record in driver.output(internal).read_all()] == [b"y"]


def test_a_left_join_behind_an_aggregate_still_gets_what_its_own_repartition_takes() -> None:
    topology = Topology("t")
    table = topology.table("rows", key=TEXT, value=TEXT)
    stream = topology.stream("left", key=TEXT, value=TEXT)
    made = stream.select_key(lambda key, value: None if value == "x" else value)
    made.left_join(table, pair, key=TEXT, name="joined").to("out", key=TEXT, value=TEXT)
    with TopologyTestDriver(topology, partitions=3) as driver:
        driver.input("left").pipe("k", "x")
        driver.input("left").pipe("k", "y")
        assert sorted(driver.output("out").values()) == ["x+None", "y+None"]
        assert driver.status().dropped == 0
