"""A topic that is read twice: shared where the settings are the same, else refused with what differs and what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import Topology, TopologyError, dead_letter, serde
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, LONG = serde.string(), serde.long()


def test_a_stream_is_shared() -> None:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=LONG).filter(lambda key, value: value > 1).to("large")
    topology.stream("in", key=TEXT, value=LONG).map_values(str).to("all", value=TEXT)
    graph = topology.build()
    assert list(graph.nodes) == ["in", "in.filter", "in.filter.to", "in.map_values", "in.map_values.to"]
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe_all([("a", 1), ("a", 2)])
        assert driver.output("large").values() == [2]
        assert driver.output("all").values() == ["1", "2"]
        assert driver.status().processed == 2


def test_streams_of_several_topics_are_shared_in_any_order() -> None:
    topology = Topology("t")
    topology.stream(["a", "b"]).to("one")
    topology.stream(["b", "a"], name="a-b").to("two")
    assert len(topology.build().subtopologies) == 1


def test_a_table_is_shared_with_its_rows() -> None:
    topology = Topology("t")
    for out in ("one", "two"):
        rows = topology.table("rows", key=TEXT, value=LONG, store="kept")
        visits = topology.stream("visits", key=TEXT, value=LONG)
        visits.join(rows, lambda visit, row: visit + row).to(out, value=LONG)
    assert list(topology.build().stores) == ["kept"]
    with TopologyTestDriver(topology) as driver:
        driver.input("rows").pipe("a", 40)
        driver.input("visits").pipe("a", 2)
        assert driver.output("one").values() == driver.output("two").values() == [42]


def test_a_global_table_is_shared() -> None:
    topology = Topology("t")
    tables = [topology.global_table("rows", key=TEXT, value=LONG) for _ in range(2)]
    assert [table.store for table in tables] == ["rows", "rows"]
    for number, table in enumerate(tables):
        stream = topology.stream("in", key=TEXT, value=LONG)
        stream.join(table, lambda one, two: one + two, on=lambda key, value: key).to(f"out-{number}", value=LONG)
    with TopologyTestDriver(topology) as driver:
        driver.input("rows").pipe("a", 40)
        driver.input("in").pipe("a", 2)
        assert driver.output("out-0").values() == driver.output("out-1").values() == [42]


REFUSED: dict[str, tuple[Callable[[Topology], Any], Callable[[Topology], Any], list[str]]] = {
    "serdes": (
        lambda t: t.stream("in", key=TEXT, value=LONG),
        lambda t: t.stream("in", key=TEXT, value=TEXT),
        [
            "topic 'in' is read twice with different settings",
            "value= is the long serde and the string serde",
            "call stream() once",
            "decoded in map_values()",
        ],
    ),
    "policy and start": (
        lambda t: t.stream("in", on_error="continue"),
        lambda t: t.stream("in", on_error=dead_letter("bad"), reset="latest"),
        ["reset= is 'earliest' and 'latest', on_error= is 'continue' and dead_letter('bad')"],
    ),
    "event time": (
        lambda t: t.stream("in", timestamp=lambda key, value: 5),
        lambda t: t.stream("in", timestamp=lambda key, value: 5),
        ["timestamp= is a function (line ", "use what it returns twice"],
    ),
    "serdes that are alike": (
        lambda t: t.stream("in", value=serde.avro("long")),
        lambda t: t.stream("in", value=serde.avro("long")),
        ["value= is the avro serde twice, but not the same object, which both calls have to get"],
    ),
    "stream and table": (
        lambda t: t.stream("in"),
        lambda t: t.table("in"),
        ["topic 'in' is read as a stream and as a table", "with to_stream()", "with to_table()"],
    ),
    "table and stream": (
        lambda t: t.table("in"),
        lambda t: t.stream("in"),
        ["topic 'in' is read as a table and as a stream"],
    ),
    "table, other store": (
        lambda t: t.table("in", store="one"),
        lambda t: t.table("in", store="two"),
        ["store= is 'one' and 'two'", "call table() once"],
    ),
    "table, other history": (
        lambda t: t.table("in"),
        lambda t: t.table("in", versioned=timedelta(hours=1), emit="change"),
        ["versioned= is None and datetime.timedelta(seconds=3600), emit= is 'update' and 'change'"],
    ),
    "several topics": (
        lambda t: t.stream(["a", "in"]),
        lambda t: t.stream("in"),
        ["topic 'in' is read by two sources, of 'a' and 'in' and of 'in'", "merge()"],
    ),
    "global table and stream": (
        lambda t: t.global_table("in", key=TEXT, value=TEXT),
        lambda t: t.stream("in"),
        ["topic 'in' is read as a global table and as a stream", "join the global table instead"],
    ),
    "global tables that differ": (
        lambda t: t.global_table("in", key=TEXT, value=TEXT),
        lambda t: t.global_table("in", key=TEXT, value=TEXT, on_error="continue"),
        ["on_error= is 'fail' and 'continue'", "call global_table() once"],
    ),
    "another name": (
        lambda t: t.stream("in", name="one"),
        lambda t: t.stream("in", name="two"),
        ["topic 'in' is read twice, by 'one' and by 'two'"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_differs_is_named(case: str) -> None:
    first, second, parts = REFUSED[case]
    topology = Topology("t")
    first(topology)
    with pytest.raises(TopologyError) as refused:
        second(topology)
    for part in parts:
        assert part in str(refused.value)
