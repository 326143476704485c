"""Rows by group, transformers and joins of tables: what properties do not show."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import (
    ProcessingError,
    ProcessorContext,
    Topology,
    TopologyError,
    ValueTransformer,
    serde,
    stores,
)
from streamstate.engine.assign.topics import prepare_topics
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from tests.unit.application_support import Run
from tests.unit.tables.support import JSON, LONG, POLICIES, TEXT, results, table_of

# -- rows by group, transformers, joins of tables: what properties do not show --------------------------------------


def outputs(topology: Topology, *records: tuple[Any, ...], topic: str = "out") -> list[tuple[Any, Any, int]]:
    """(topic, key, value, event time) records in, (key, value, time) out."""
    with TopologyTestDriver(topology) as driver:
        for source, key, value, timestamp in records:
            driver.input(source).pipe(key, value, timestamp=timestamp)
        return [(record.key, record.value, record.timestamp) for record in driver.output(topic).read_all()]


def test_a_row_that_changes_its_group_leaves_the_old_one_first() -> None:
    topology, table = table_of()
    table.group_by(lambda key, value: value[0], key=TEXT).count(store="counts").to_stream().to("out")
    found = outputs(topology, ("in", "a", "x1", 10), ("in", "a", "x2", 5), ("in", "a", "y", 20), ("in", "a", None, 15))
    # Where the group stays, one step and one result.
    assert found == [("x", 1, 10), ("x", 1, 10), ("x", 0, 20), ("y", 1, 20), ("y", 0, 20)]


def test_what_is_aggregated_can_be_selected_and_nothing_is_in_no_group() -> None:
    topology, table = table_of()
    grouped = table.group_by(
        lambda key, value: None if value == "none" else "g",
        key=TEXT,
        select=lambda key, value: None if value == "zero" else len(key + value),
        value=LONG,
    )
    grouped.reduce(lambda one, other: one + other, lambda one, other: one - other, store="r").to_stream().to("out")
    found = outputs(
        topology, ("in", "a", "xx", 1), ("in", "b", "none", 2), ("in", "b", "zero", 3), ("in", "b", "y", 4),
        ("in", "a", "zero", 5),
    )  # fmt: skip
    assert found == [("g", 3, 1), ("g", 5, 4), ("g", 2, 5)]


class Numbered(ValueTransformer[str, str, str]):
    """Numbers the changes of each key."""

    def init(self, context: ProcessorContext[Any, Any]) -> None:
        super().init(context)
        self.versions = context.store("versions")

    def transform(self, key: str, value: str | None) -> str | None:
        number = (self.versions.get(key) or 0) + 1
        self.versions.put(key, number)
        return None if value is None else f"{value}{number}"


VERSIONS = stores.key_value("versions", key=TEXT, value=LONG)


def test_a_transformer_keeps_state_and_is_called_for_deletions() -> None:
    topology, table = table_of()
    table.transform_values(Numbered, stores=[VERSIONS]).to_stream().to("out", value=TEXT)
    found = outputs(topology, ("in", "a", "x", 1), ("in", "a", None, 2), ("in", "a", "y", 3))
    assert found == [("a", "x1", 1), ("a", None, 2), ("a", "y3", 3)]


def test_what_a_transformer_made_is_kept_where_it_is_looked_up() -> None:
    topology, table = table_of()
    numbered = table.transform_values(Numbered, stores=[VERSIONS], value=TEXT)
    assert numbered.store is None
    topology.stream("s", key=TEXT, value=TEXT).join(numbered, lambda one, other: one + other).to("out", value=TEXT)
    assert numbered.store == "in.table.transform_values"
    assert outputs(topology, ("in", "a", "x", 1), ("s", "a", "s", 2), ("s", "a", "t", 3)) == [
        ("a", "sx1", 2),
        ("a", "tx1", 3),
    ]


def test_what_a_transformer_made_needs_a_serde_where_it_is_looked_up() -> None:
    topology, table = table_of()
    numbered = table.transform_values(Numbered, stores=[VERSIONS])
    with pytest.raises(TopologyError, match="pass value= to transform_values"):
        topology.stream("s", key=TEXT).join(numbered, lambda one, other: one)


def test_a_transformer_cannot_forward() -> None:
    class Forwards(ValueTransformer[str, str, str]):
        def transform(self, key: str, value: str | None) -> str | None:
            self.context.forward(key, value)
            return value

    topology, table = table_of()
    table.transform_values(Forwards).to_stream().to("out", value=TEXT)
    with pytest.raises(ProcessingError, match="a ValueTransformer cannot forward"):
        outputs(topology, ("in", "a", "x", 1))


def test_a_table_joined_with_itself() -> None:
    topology, table = table_of()
    table.join(table, lambda one, other: one + other).to_stream().to("out", value=TEXT)
    # As in Kafka Streams both sides see the change.
    assert outputs(topology, ("in", "a", "x", 1)) == [("a", "xx", 1), ("a", "xx", 1)]


def test_deletions_of_what_was_not_there_make_no_results_where_old_rows_are_known() -> None:
    topology = Topology("t")
    left, right = (topology.table(topic, key=TEXT, value=TEXT) for topic in "lr")
    left.outer_join(right, lambda one, other: f"{one}{other}").to_stream().to("out", value=TEXT)
    found = outputs(topology, ("l", "a", None, 1), ("r", "a", "y", 2), ("l", "a", None, 3), ("r", "a", None, 4))
    assert found == [("a", "Noney", 2), ("a", "Noney", 3), ("a", None, 4)]


def test_a_join_has_the_greater_timestamp_of_its_rows() -> None:
    topology = Topology("t")
    left, right = (topology.table(topic, key=TEXT, value=TEXT) for topic in "lr")
    left.join(right, lambda one, other: one + other).to_stream().to("out", value=TEXT)
    assert outputs(topology, ("l", "a", "x", 30), ("r", "a", "y", 20), ("l", "a", None, 5)) == [
        ("a", "xy", 30),
        ("a", None, 20),
    ]


def test_tables_of_different_topologies_are_not_joined() -> None:
    _, one = table_of()
    _, other = table_of()
    with pytest.raises(TopologyError, match="another Topology"):
        one.join(other, lambda left, right: left)


def test_a_streams_aggregate_that_changes_in_place_keeps_what_was_for_groups_of_it() -> None:
    topology = Topology("t")

    def longer(key: str, value: str, seen: list[str]) -> list[str]:
        seen.append(value)
        return seen

    def joined(one: list[str], other: list[str]) -> list[str]:
        one.extend(other)
        return one

    grouped = topology.stream("in", key=TEXT, value=JSON).group_by_key()
    lists = grouped.aggregate(initializer=list, aggregator=longer, value=JSON, store="lists")
    folded = grouped.reduce(joined, store="folded")
    for table, name in ((lists, "out"), (folded, "other")):
        table.group_by(lambda key, seen: str(len(seen)), key=TEXT).count(store=name).to_stream().to(name)
    records = [("in", "a", ["x"], 1), ("in", "a", ["y"], 2)]
    assert outputs(topology, *records) == [("1", 1, 1), ("1", 0, 2), ("2", 1, 2)]
    assert outputs(topology, *records, topic="other") == [("1", 1, 1), ("1", 0, 2), ("2", 1, 2)]


@pytest.mark.parametrize("stream_first", [True, False])
def test_at_equal_times_the_row_comes_first(stream_first: bool) -> None:
    topology = Topology("t")
    source = "a" if stream_first else "z"
    stream = topology.stream(source, key=TEXT, value=TEXT)
    table = topology.table("in", key=TEXT, value=TEXT)
    stream.left_join(table, lambda left, right: f"{left}+{right}").to("out", value=TEXT)
    run = Run(topology, {"in": 1, source: 1})
    run.broker.append(source, key=b"k", value=b"1", timestamp=1_000)
    run.broker.append("in", key=b"k", value=b"x", timestamp=1_000)
    run.ticks(40, 100)
    assert results(run) == [("k", "1+x")]


@pytest.mark.parametrize(("config", "reused"), [("compacted", False), ("kept", True)])
def test_a_compacted_topic_is_not_the_changelog_where_rows_are_compared(config: str, reused: bool) -> None:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT, store="rows")
    table.filter(lambda key, value: True).group_by(lambda key, value: value, key=TEXT).count(store="counts")
    broker = MemoryBroker(ManualClock())
    broker.create_topic("in", 1, POLICIES[config][0])
    topics = prepare_topics(topology.build(), "app", MemoryAdmin(broker))
    assert topics.graph.stores["rows"].reuse is reused


def test_a_record_that_waited_for_rows_and_went_within_a_commit_leaves_no_trace() -> None:
    topology = Topology("t")
    rows = topology.table("rows", key=TEXT, value=TEXT, versioned=timedelta(seconds=10))
    asked = topology.stream("asked", key=TEXT, value=TEXT)
    joined = asked.left_join(rows, lambda one, other: f"{one} {other}", grace=timedelta(milliseconds=5), name="then")
    joined.to("out", value=TEXT)
    with TopologyTestDriver(topology, auto_commit=False) as driver:
        for number in range(4):
            driver.input("asked").pipe("a", str(number), timestamp=10 * number)
        driver.commit()
        assert [record.value for record in driver.output("out").read_all()] == ["0 None", "1 None", "2 None"]
        # The one that still waits, and the time.
        assert len(driver.broker.read("t-then-buffer-changelog")) == 2
        driver.input("asked").pipe("a", "4", timestamp=40)
        driver.commit()
        values = [record.value() for record in driver.broker.read("t-then-buffer-changelog")]
        assert len(values) == 5
        assert values.count(None) == 1


def test_an_answer_to_what_is_not_asked_any_more_is_not_counted_as_dropped() -> None:
    topology = Topology("t")
    left = topology.table("left", key=serde.string(), value=serde.string())
    right = topology.table("right", key=serde.string(), value=serde.string())
    joined = left.join(right, lambda one, other: f"{one}{other}", foreign_key=lambda key, value: value[0], name="meet")
    joined.to_stream().to("out", value=serde.string())
    with TopologyTestDriver(topology) as driver:
        driver.input("right").pipe("a", "!")
        driver.input("right").pipe("b", "?")
        with driver.backlog():
            for value in ("a1", "b1", "a2", "b2"):
                driver.input("left").pipe("k", value)
        assert driver.output("out").values() == ["b2?"]
        assert driver.status().dropped == 0
