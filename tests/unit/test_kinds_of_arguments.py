"""Handles and windows of the wrong kind, or of another topology, are refused when the topology is built."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import Topology, TopologyError, serde, windows

TEXT = serde.string()
MINUTE = timedelta(minutes=1)
WITHIN = windows.join(MINUTE)


class Handles:
    """One of each kind, of one topology."""

    def __init__(self, name: str = "t") -> None:
        topology = Topology(name)
        self.stream: Any = topology.stream("lines", key=TEXT, value=TEXT)
        self.other: Any = topology.stream("more", key=TEXT, value=TEXT)
        self.table: Any = topology.table("rows", key=TEXT, value=TEXT)
        self.others: Any = topology.table("others", key=TEXT, value=TEXT)
        self.everywhere: Any = topology.global_table("everywhere", key=TEXT, value=TEXT)
        self.grouped: Any = self.stream.group_by_key()
        self.grouped_table: Any = self.table.group_by(lambda key, value: value, key=TEXT)
        self.windowed: Any = self.other.group_by_key().windowed_by(windows.tumbling(MINUTE))
        self.cogrouped: Any = self.grouped.cogroup(lambda key, value, seen: seen)


def pair(left: Any, right: Any) -> Any:
    return left, right


def added(key: Any, value: Any, seen: Any) -> Any:
    return seen


# What is done with two sets of handles, the second for the argument; and what the error says.
WRONG: dict[str, tuple[Callable[[Handles, Handles], Any], str]] = {
    "merge, a table": (
        lambda h, o: h.stream.merge(o.table),
        r"merge after 'lines' takes a Stream, not <Table rows.*>: .*table\.to_stream\(\)",
    ),
    "merge, one of several": (lambda h, o: h.stream.merge(o.other, o.table), r"takes a Stream.*to_stream\(\)"),
    "merge, a global table": (lambda h, o: h.stream.merge(o.everywhere), "no changes that flow"),
    "merge, grouped": (lambda h, o: h.stream.merge(o.grouped), "from before it was grouped"),
    "merge, windowed": (lambda h, o: h.stream.merge(o.windowed), "from before it was grouped"),
    "merge, a grouped table": (lambda h, o: h.stream.merge(o.grouped_table), "from before it was grouped"),
    "merge, a list": (lambda h, o: h.stream.merge([o.other]), "one by one"),
    "merge, a name": (lambda h, o: h.stream.merge("more"), "takes a Stream, not 'more'"),
    "join, grouped": (
        lambda h, o: h.stream.join(o.grouped, pair),
        "join after 'lines' takes a Stream, a Table or a GlobalTable, not <GroupedStream.*makes a table of it",
    ),
    "left_join, a name": (lambda h, o: h.stream.left_join("rows", pair), "a Stream, a Table or a GlobalTable, not 'r"),
    "outer_join, a table": (lambda h, o: h.stream.outer_join(o.table, pair, within=WITHIN), r"table\.to_stream\(\)"),
    "outer_join, global": (lambda h, o: h.stream.outer_join(o.everywhere, pair, within=WITHIN), "no changes that flow"),
    "join, other windows": (
        lambda h, o: h.stream.join(o.other, pair, within=windows.tumbling(MINUTE)),
        r"takes within=.*these are for windowed_by",
    ),
    "join, a number": (
        lambda h, o: h.stream.join(o.other, pair, within=5),
        r"takes within=, such as within='5m', not 5",
    ),
    "tables, a stream": (lambda h, o: h.table.join(o.stream, pair), r"takes a Table, not .*stream\.to_table\(\)"),
    "tables, a global one": (lambda h, o: h.table.left_join(o.everywhere, pair), "joined with streams only"),
    "tables, grouped": (lambda h, o: h.table.outer_join(o.grouped, pair), "makes a table of it"),
    "cogroup, a stream": (lambda h, o: h.cogrouped.cogroup(o.other, added), r"stream\.group_by_key\(\)"),
    "cogroup, a table": (lambda h, o: h.cogrouped.cogroup(o.table, added), r"table\.to_stream\(\)\.group_by_key\(\)"),
    "cogroup, a grouped table": (lambda h, o: h.cogrouped.cogroup(o.grouped_table, added), r"table\.to_stream\(\)"),
    "cogroup, windowed": (lambda h, o: h.cogrouped.cogroup(o.windowed, added), "cogroup first"),
    "cogroup, cogrouped": (lambda h, o: h.cogrouped.cogroup(o.cogrouped, added), "one by one"),
    "windowed_by, for joins": (lambda h, o: h.grouped.windowed_by(WITHIN), "takes windows.*within= of joins"),
    "windowed_by, a timedelta": (lambda h, o: h.grouped.windowed_by(MINUTE), r"windows\.tumbling\(timedelta\("),
    "windowed_by of a cogroup": (lambda h, o: h.cogrouped.windowed_by(WITHIN), "takes windows.*within= of joins"),
}  # fmt: skip

# The right kinds, of another topology.
STRANGERS: dict[str, Callable[[Handles, Handles], Any]] = {
    "merge": lambda h, o: h.stream.merge(o.other),
    "merge, one of several": lambda h, o: h.stream.merge(h.other, o.stream.filter(pair)),
    "join with a stream": lambda h, o: h.stream.join(o.other, pair, within=WITHIN),
    "outer_join": lambda h, o: h.stream.outer_join(o.other, pair, within=WITHIN),
    "join with a table": lambda h, o: h.stream.join(o.table, pair),
    "left_join with a table": lambda h, o: h.stream.left_join(o.table, pair),
    "join with a global table": lambda h, o: h.stream.join(o.everywhere, pair, on=lambda key, value: key),
    "tables": lambda h, o: h.table.join(o.others, pair),
    "tables by foreign key": lambda h, o: h.table.join(o.others, pair, foreign_key=lambda k, v: v, value=TEXT),
    "cogroup": lambda h, o: h.cogrouped.cogroup(o.grouped, added),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_wrong_kind_is_refused_and_the_right_one_is_named(case: str) -> None:
    handles = Handles()
    do, message = WRONG[case]
    with pytest.raises(TopologyError, match=message):
        do(handles, handles)


@pytest.mark.parametrize("case", STRANGERS)
def test_a_handle_of_another_topology_is_refused(case: str) -> None:
    with pytest.raises(TopologyError, match="got one of another Topology, 'other'"):
        STRANGERS[case](Handles(), Handles("other"))


@pytest.mark.parametrize("case", STRANGERS)
def test_the_same_within_one_topology_is_taken(case: str) -> None:
    handles = Handles()
    assert STRANGERS[case](handles, handles) is not None
