"""Tables: rows, changes, row-wise operators, and the join of a stream with a table."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import (
    ProcessingError,
    Processor,
    ProcessorContext,
    Table,
    TaskCorrupted,
    Topology,
    TopologyError,
    ValueTransformer,
    serde,
    stores,
)
from streamstate.engine.assign.topics import CHANGELOG_CONFIG, Topics, prepare_topics
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.application import MemoryApplication
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from tests.unit.application_support import Run

TEXT, LONG, JSON = serde.string(), serde.long(), serde.json()


def table_of(**options: Any) -> tuple[Topology, Table[str, str]]:
    topology = Topology("t")
    return topology, topology.table("in", key=TEXT, value=TEXT, **options)


def results(run: Run, topic: str = "out") -> list[tuple[str | None, str | None]]:
    return [(k and k.decode(), v and v.decode()) for k, v in run.out(topic)]


def feed(run: Run, topic: str, *records: tuple[Any, ...]) -> None:
    """(key, value) or (key, value, event time) as text, processed before this returns."""
    for key, value, *timestamp in records:
        run.broker.append(
            topic,
            key=None if key is None else key.encode(),
            value=None if value is None else value.encode(),
            **({"timestamp": timestamp[0]} if timestamp else {}),
        )
        run.ticks(3)


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


def joined(compacted: str = "in", **options: Any) -> Run:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT, **options)
    stream = topology.stream("s", key=TEXT, value=TEXT)
    stream.join(table, lambda left, right: f"{left}+{right}").to("out", value=TEXT)
    stream.left_join(table, lambda left, right: f"{left}+{right}").to("left", value=TEXT)
    return Run(topology, {"in": 1, "s": 1}, compacted)


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


# -- the source topic as the changelog -----------------------------------------------------------------------------


def test_a_table_whose_topic_can_be_its_changelog_has_no_other() -> None:
    run = joined()
    assert [topic for topic in run.broker.topics() if "changelog" in topic] == []


@pytest.mark.parametrize("options", [{"own_changelog": True}, {"on_error": "continue"}, {"compacted": ""}])
def test_a_table_whose_topic_cannot_be_its_changelog_has_its_own(options: dict[str, Any]) -> None:
    run = joined(**options)
    feed(run, "in", ("a", "x"))
    assert run.state("in.table") == {b"a": b"x"}
    run.app.disks.clear()
    run.restart(close=False)
    feed(run, "s", ("a", "1"))
    assert results(run) == [("a", "1+x")]


@pytest.mark.parametrize("close", [True, False])
def test_lost_rows_are_restored_from_the_source_up_to_what_is_processed(close: bool) -> None:
    run = joined(timestamp=lambda key, value: 1_000 + len(value))
    feed(run, "in", ("a", "x"), ("b", "y"), ("b", None), ("a", "zz"))
    worker = run.workers.pop("w")
    worker.close() if close else run.broker.expel("w")
    run.app.disks.clear()
    # Not processed yet: the stream's record, of an earlier event time, must not meet it.
    run.broker.append("in", key=b"a", value=b"later", timestamp=2_000)
    run.broker.append("s", key=b"a", value=b"1", timestamp=1)
    run.start()
    run.ticks(20)
    assert results(run, "left")[-1:] == [("a", "1+zz")]
    store = next(iter(run.worker.assignment.tasks.values())).stores["in.table"]
    assert store.get(b"a") == ("later", 1_005)
    assert store.get(b"b") is None


def test_a_crash_between_the_commit_and_the_store_is_repaired_from_the_source() -> None:
    run = joined()
    feed(run, "in", ("a", "x"))
    task = next(iter(run.worker.assignment.tasks.values()))
    # The store keeps what it was before this commit.
    task.backend.apply = lambda *_, **__: None  # type: ignore[union-attr,method-assign,assignment]
    feed(run, "in", ("a", "y"))
    assert run.offset() is not None
    disk = run.app.disks["w"]
    (backend,) = disk.backends.values()
    del backend.apply
    assert backend.positions() == {"in.table": 1}
    run.restart(close=False)
    feed(run, "s", ("a", "1"))
    assert results(run) == [("a", "1+y")]


def test_offsets_that_were_put_back_rebuild_the_rows_as_they_were_there() -> None:
    run = joined()
    feed(run, "in", ("a", "x"), ("a", "y"))
    run.workers.pop("w").close()
    backend = next(iter(run.app.disks["w"].backends.values()))
    # As if the store were ahead of the group's offset.
    backend.apply({"in.table": {b"ghost": b"\x01" + bytes(8) + b"z"}}, {"in.table": 99}, {})
    run.start()
    feed(run, "s", ("a", "1"), ("ghost", "1"))
    assert results(run) == [("a", "1+y")]


POLICIES = {
    "compacted": ({"cleanup.policy": "compact"}, True),
    "kept": ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}, True),
    "deleted by time": ({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, False),
    "deleted by size": ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "1000"}, False),
    "compacted and deleted": ({"cleanup.policy": "compact,delete", "retention.ms": "604800000"}, False),
    "default": ({}, False),
}


def configured(config: dict[str, str], *existing: str) -> Topics:
    topology = Topology("t")
    topology.table("in", key=TEXT, value=TEXT, store="rows").to_stream().to("out")
    broker = MemoryBroker(ManualClock())
    broker.create_topic("in", 1, config)
    for topic in existing:
        broker.create_topic(topic, 1, CHANGELOG_CONFIG)
    return prepare_topics(topology.build(), "app", MemoryAdmin(broker))


@pytest.mark.parametrize(("config", "reused"), POLICIES.values(), ids=POLICIES)
def test_a_topic_that_keeps_its_rows_is_the_changelog(config: dict[str, str], reused: bool) -> None:
    topics = configured(config)
    assert topics.graph.stores["rows"].reuse is reused
    assert ("app-rows-changelog" in topics.created) is not reused
    assert ("rows" in topics.plan.changelogs) is not reused


def test_a_changelog_that_exists_stays_in_use() -> None:
    topics = configured({"cleanup.policy": "compact"}, "app-rows-changelog")
    assert not topics.graph.stores["rows"].reuse


def test_local_copies_are_used_no_longer_than_the_source_keeps_tombstones() -> None:
    day_ms = 24 * 60 * 60 * 1_000
    compacted = {"cleanup.policy": "compact"}
    assert configured({**compacted, "delete.retention.ms": str(day_ms)}).copies_usable_s < day_ms / 1_000
    assert configured({**compacted, "delete.retention.ms": str(30 * day_ms)}).copies_usable_s == 6 * day_ms / 1_000


def test_a_table_whose_rows_would_be_lost_by_a_new_changelog_is_refused() -> None:
    run = joined()
    feed(run, "in", ("a", "x"))
    run.workers.pop("w").close()
    topology = Topology("t")
    topology.table("in", key=TEXT, value=TEXT, own_changelog=True, store="in.table").to_stream().to("out")
    run.app = MemoryApplication(topology.build(), run.broker, run.clock, run.app.settings)
    run.start("other")
    with pytest.raises(TaskCorrupted, match=r"'in.table' is empty: so far the topic itself was the changelog"):
        run.ticks(4)


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
