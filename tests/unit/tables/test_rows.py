"""Tables of topics: changes, and what is looked up in them."""

from __future__ import annotations

import pytest

from streamstate import (
    Processor,
    Topology,
    TopologyError,
)
from tests.unit.application_support import Run
from tests.unit.tables.support import JSON, LONG, TEXT, feed, joined, results, table_of


def test_every_record_with_a_key_is_a_change_and_null_deletes() -> None:
    topology, table = table_of(store="rows")
    table.to_stream().to("out")
    run = Run(topology)
    feed(run, "in", ("a", "1"), ("a", "1"), (None, "x"), ("a", None), ("b", "2"))
    assert results(run) == [("a", "1"), ("a", "1"), ("a", None), ("b", "2")]
    assert [task.counters.dropped for task in run.worker.assignment.tasks.values()] == [1]


def test_a_table_that_nothing_looks_into_keeps_no_rows() -> None:
    topology, table = table_of()
    table.map_values(str.upper).to_stream().to("out", value=TEXT)
    assert table.store is None
    assert topology.build().stores == {}
    run = Run(topology)
    feed(run, "in", ("a", "x"), ("a", None))
    assert results(run) == [("a", "X"), ("a", None)]


def test_on_change_only_rows_that_differ_are_passed_on() -> None:
    topology = Topology("t")
    topology.table("in", key=TEXT, value=JSON, emit="change").to_stream().to("out")
    run = Run(topology)
    feed(run, "in", ("b", None), ("a", '{"x":1}'), ("a", '{ "x": 1 }'), ("a", '{"x":2}'), ("a", None), ("a", None))
    assert results(run) == [("a", '{"x":1}'), ("a", '{"x":2}'), ("a", None)]


def test_a_filter_deletes_what_does_not_pass() -> None:
    topology, table = table_of()
    table.filter(lambda key, value: value > "m").to_stream().to("out")
    table.filter_not(lambda key, value: value > "m").to_stream().to("other")
    run = Run(topology)
    feed(run, "in", ("a", "x"), ("a", "b"), ("a", "b"), ("a", None))
    # As in Kafka Streams, what was not there is deleted too while nothing compares old and new rows.
    assert results(run) == [("a", "x"), ("a", None), ("a", None), ("a", None)]
    assert results(run, "other") == [("a", None), ("a", "b"), ("a", "b"), ("a", None)]


def test_the_newest_row_is_that_of_the_greatest_offset() -> None:
    topology, table = table_of()
    topology.stream("s", key=TEXT, value=TEXT).join(table, lambda left, right: left + right).to("out", value=TEXT)
    run = Run(topology, {"in": 1, "s": 1})
    feed(run, "in", ("a", "new", 2_000), ("a", "old", 1_000))
    feed(run, "s", ("a", "1", 3_000))
    assert results(run) == [("a", "1old")]
    assert run.times() == [3_000]


def test_a_join_meets_the_row_as_it_is() -> None:
    run = joined()
    feed(run, "s", ("a", "1"))
    feed(run, "in", ("a", "x"))
    feed(run, "s", ("a", "2"), ("b", "3"), (None, "4"), ("a", None))
    feed(run, "in", ("a", None))
    feed(run, "s", ("a", "5"))
    assert results(run) == [("a", "2+x")]
    assert results(run, "left") == [("a", "1+None"), ("a", "2+x"), ("b", "3+None"), (None, "4+None"), ("a", "5+None")]


def test_rows_are_looked_up_through_filters_and_maps() -> None:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT).filter(lambda key, value: value != "no").map_values(str.upper)
    topology.stream("s", key=TEXT, value=TEXT).left_join(table, lambda left, right: f"{left}+{right}").to(
        "out", value=TEXT
    )
    assert list(topology.build().stores) == ["in.table"]
    run = Run(topology, {"in": 1, "s": 1})
    feed(run, "in", ("a", "yes"), ("b", "no"))
    feed(run, "s", ("a", "1"), ("b", "2"))
    assert results(run) == [("a", "1+YES"), ("b", "2+None")]


def test_a_named_store_holds_what_the_table_shows() -> None:
    topology, table = table_of()
    long = table.filter(lambda key, value: len(value) > 1, store="long")
    length = long.map_values(len, value=LONG, store="length")

    class Reader(Processor[str, str, str, str]):
        def process(self, key: str, value: str) -> None:
            found = self.context.store("long").get(key), self.context.store("length").get(key)
            self.context.forward(key, str(found))

    topology.stream("s", key=TEXT, value=TEXT).process(Reader, stores=["long", "length"]).to(
        "out", key=TEXT, value=TEXT
    )
    assert length.store == "length"
    run = Run(topology, {"in": 1, "s": 1})
    feed(run, "in", ("a", "xyz"), ("b", "x"))
    feed(run, "s", ("a", ""), ("b", ""))
    feed(run, "in", ("a", "x"))
    feed(run, "s", ("a", ""))
    assert results(run) == [("a", "('xyz', 3)"), ("b", "(None, None)"), ("a", "(None, None)")]
    assert run.state("length") == {}


def test_a_stream_with_a_changed_key_meets_the_table_by_way_of_a_repartition_topic() -> None:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT)
    stream = topology.stream("s", key=TEXT, value=TEXT).select_key(lambda key, value: value)
    stream.left_join(table, lambda left, right: f"{left}+{right}", key=TEXT).to("out", value=TEXT)
    assert [part.name for part in topology.build().subtopologies] == ["in", "s"]
    run = Run(topology, {"in": 3, "s": 2})
    assert "app-s.select_key.left_join-repartition" in run.broker.topics()
    for key in "abcdef":
        feed(run, "in", (key, key.upper()))
    for key in "abcdefg":
        feed(run, "s", ("k", key))
    run.ticks(10)
    assert sorted(results(run)) == sorted([(key, f"{key}+{key.upper()}") for key in "abcdef"] + [("g", "g+None")])


def test_unlike_partition_counts_are_refused() -> None:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT)
    topology.stream("s", key=TEXT, value=TEXT).join(table, lambda left, right: left).to("out", value=TEXT)
    with pytest.raises(TopologyError, match=r"'in' has 3 partitions, 's' has 2 partitions: put .repartition"):
        Run(topology, {"in": 3, "s": 2})


def test_a_table_of_another_topology_is_refused() -> None:
    _, table = table_of()
    with pytest.raises(TopologyError, match="another Topology"):
        Topology("u").stream("s").join(table, lambda left, right: left)  # type: ignore[arg-type]
