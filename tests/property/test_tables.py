"""Laws of tables: what came out last, per key, is what the final rows say, whatever happened on the way."""

from __future__ import annotations

from collections import Counter
from operator import add, sub
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import Table, Topology, serde
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, LONG, JSON = serde.string(), serde.long(), serde.json()
KEYS = st.sampled_from("abc")
VALUES = st.none() | st.integers(0, 9)
TIMES = st.integers(0, 20)
# A change of a row of one of two tables, or what interrupts: a crash with or without its state.
CHANGES = st.lists(st.tuples(st.sampled_from("lr"), KEYS, VALUES, TIMES), max_size=25)
INTERRUPTIONS = st.lists(st.integers(0, 25), max_size=2)

Change = tuple[str, str, Any, int]


def outcome(
    topology: Topology, changes: list[Change], interruptions: list[int], partitions: Any = 2
) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The newest output per key, deletions left out, and the final rows of both inputs."""
    rows: dict[str, Any] = {"l": {}, "r": {}}
    last: dict[Any, Any] = {}
    with TopologyTestDriver(topology, partitions=partitions) as driver:
        known = {topic for part in driver.graph.subtopologies for topic in part.source_topics}
        for number, (topic, key, value, time) in enumerate(changes):
            if topic not in known:
                continue
            if number in interruptions:
                driver.crash(disk="lost" if number % 2 else "kept")
            driver.input(topic).pipe(key, value, timestamp=time)
            rows[topic][key] = value
        for record in driver.output("out").read_all():
            last[record.key] = record.value
    final = {topic: {k: v for k, v in table.items() if v is not None} for topic, table in rows.items()}
    return {k: v for k, v in last.items() if v is not None}, final


def two_tables() -> tuple[Topology, Table[str, int], Table[str, int]]:
    topology = Topology("t")
    return topology, topology.table("l", key=TEXT, value=LONG), topology.table("r", key=TEXT, value=LONG)


JOINS = {
    "join": lambda left, right: left.keys() & right.keys(),
    "left_join": lambda left, right: left.keys(),
    "outer_join": lambda left, right: left.keys() | right.keys(),
}


@pytest.mark.parametrize("kind", JOINS)
@pytest.mark.parametrize("kept", [True, False])
@settings(max_examples=25)
@given(CHANGES, INTERRUPTIONS)
def test_a_join_of_tables_is_the_join_of_their_rows(
    kind: str, kept: bool, changes: list[Change], interruptions: list[int]
) -> None:
    topology, left, right = two_tables()
    store = {"store": "joined", "value": JSON} if kept else {}
    joined = getattr(left, kind)(right, lambda one, other: [one, other], **store)
    joined.to_stream().to("out", value=JSON)
    last, rows = outcome(topology, changes, interruptions)
    one, other = rows["l"], rows["r"]
    assert last == {key: [one.get(key), other.get(key)] for key in JOINS[kind](one, other)}


@settings(max_examples=25)
@given(CHANGES, INTERRUPTIONS)
def test_a_join_of_joins_filters_and_maps_is_that_of_the_rows(changes: list[Change], interruptions: list[int]) -> None:
    topology, left, right = two_tables()
    even = left.filter(lambda key, value: value % 2 == 0).map_values(lambda value: value * 10)
    both = even.outer_join(right, lambda one, other: [one, other]).left_join(left, lambda pair, value: [*pair, value])
    both.to_stream().to("out", value=JSON)
    last, rows = outcome(topology, changes, interruptions)
    tens = {key: value * 10 for key, value in rows["l"].items() if value % 2 == 0}
    assert last == {
        key: [tens.get(key), rows["r"].get(key), rows["l"].get(key)] for key in tens.keys() | rows["r"].keys()
    }


@settings(max_examples=25)
@given(CHANGES, INTERRUPTIONS)
def test_groups_are_those_of_the_rows(changes: list[Change], interruptions: list[int]) -> None:
    topology, left, _ = two_tables()
    odd = left.filter(lambda key, value: value != 7)
    groups = odd.group_by(lambda key, value: f"{value % 3}", key=TEXT)
    total = groups.reduce(add, sub, store="total").map_values(lambda value: [value])
    count = groups.count(store="count").map_values(lambda value: [value])
    total.join(count, lambda one, other: one + other).to_stream().to("out", value=JSON)
    last, rows = outcome(topology, changes, interruptions)
    kept = [value for value in rows["l"].values() if value != 7]
    sums, counts = Counter(), Counter()  # type: ignore[var-annotated]
    for value in kept:
        sums[f"{value % 3}"] += value
        counts[f"{value % 3}"] += 1
    assert {key: value for key, value in last.items() if value[1]} == {key: [sums[key], counts[key]] for key in counts}
    assert all(value == [0, 0] for key, value in last.items() if key not in counts)


@settings(max_examples=25)
@given(CHANGES, INTERRUPTIONS)
def test_functions_that_change_the_aggregate_in_place_do_not_change_what_was(
    changes: list[Change], interruptions: list[int]
) -> None:
    topology = Topology("t")

    def kept(key: str, value: int, seen: list[int]) -> list[int]:
        seen.append(value)
        return seen

    def dropped(key: str, value: int, seen: list[int]) -> list[int]:
        seen.remove(value)
        return seen

    rows = topology.table("l", key=TEXT, value=LONG)
    members = rows.group_by(lambda key, value: f"{value % 3}", key=TEXT)
    lists = members.aggregate(initializer=list, adder=kept, subtractor=dropped, value=JSON, store="members")
    # Needs the old list to know from which group of lengths it has to go.
    lists.group_by(lambda key, seen: f"{len(seen)}", key=TEXT).count(store="lengths").to_stream().to("out")
    last, final = outcome(topology, changes, interruptions)
    sizes = Counter(f"{value % 3}" for value in final["l"].values())
    lengths = Counter(f"{size}" for size in sizes.values())
    assert {key: value for key, value in last.items() if value and key != "0"} == lengths


@pytest.mark.parametrize("kind", ["join", "left_join"])
@pytest.mark.parametrize("kept", [True, False])
@settings(max_examples=25)
@given(CHANGES, INTERRUPTIONS)
def test_a_join_by_foreign_key_is_the_join_of_the_rows(
    kind: str, kept: bool, changes: list[Change], interruptions: list[int]
) -> None:
    topology, left, right = two_tables()

    def wanted(key: str, value: int) -> str | None:
        return "abc"[value % 3] if value % 4 else None

    store = {"store": "joined"} if kept else {}
    joined = getattr(left, kind)(
        right, lambda one, other: [one, other], foreign_key=wanted, value=JSON, name="fk", **store
    )
    joined.to_stream().to("out", value=JSON)
    last, rows = outcome(topology, changes, interruptions, {"l": 3, "r": 2})
    expected = {key: [value, rows["r"].get(wanted(key, value))] for key, value in rows["l"].items()}
    assert last == {key: pair for key, pair in expected.items() if kind == "left_join" or pair[1] is not None}


@settings(max_examples=25)
@given(CHANGES, INTERRUPTIONS)
def test_a_table_joined_with_itself_by_foreign_key_and_grouped(changes: list[Change], interruptions: list[int]) -> None:
    topology, left, _ = two_tables()
    pairs = left.join(
        left, lambda one, other: [one, other], foreign_key=lambda key, value: "abc"[value % 3], value=JSON, name="fk"
    )
    counts = pairs.group_by(lambda key, pair: f"{pair[1]}", key=TEXT).count(store="counts")
    counts.to_stream().to("out")
    last, rows = outcome(topology, changes, interruptions)
    found = [rows["l"].get("abc"[value % 3]) for value in rows["l"].values()]
    assert {key: value for key, value in last.items() if value} == Counter(f"{v}" for v in found if v is not None)


@pytest.mark.parametrize("kind", JOINS)
@settings(max_examples=40)
@given(CHANGES, INTERRUPTIONS)
def test_a_stream_as_a_table_is_the_table_of_its_topic(
    kind: str, changes: list[Change], interruptions: list[int]
) -> None:
    def outputs(*, from_stream: bool) -> list[tuple[Any, Any, int]]:
        topology, left, right = two_tables()
        if from_stream:
            topology = Topology("t")
            left = topology.stream("l", key=TEXT, value=LONG).to_table()
            right = topology.stream("r", key=TEXT, value=LONG).filter(lambda key, value: True).to_table(store="r")
        getattr(left, kind)(right, lambda one, other: [one, other]).to_stream().to("out", value=JSON)
        with TopologyTestDriver(topology) as driver:
            for number, (topic, key, value, time) in enumerate(changes):
                if number in interruptions:
                    driver.crash(disk="lost" if number % 2 else "kept")
                driver.input(topic).pipe(key, value, timestamp=time)
            return [(record.key, record.value, record.timestamp) for record in driver.output("out").read_all()]

    assert outputs(from_stream=True) == outputs(from_stream=False)


@settings(max_examples=60)
@given(CHANGES, INTERRUPTIONS)
def test_changes_are_updates_without_those_that_change_nothing(changes: list[Change], interruptions: list[int]) -> None:
    def outputs(emit: Any) -> list[tuple[Any, Any, int]]:
        topology, left, right = two_tables()
        joined = left.outer_join(right, lambda one, other: [one and one % 2, other and other % 2])
        joined.map_values(sum_of).to_stream(emit=emit).to("out", value=JSON)
        with TopologyTestDriver(topology) as driver:
            for number, (topic, key, value, time) in enumerate(changes):
                if number in interruptions:
                    driver.crash(disk="lost" if number % 2 else "kept")
                driver.input(topic).pipe(key, value, timestamp=time)
            return [(record.key, record.value, record.timestamp) for record in driver.output("out").read_all()]

    rows: dict[Any, Any] = {}
    differing = []
    for key, value, time in outputs("update"):
        if rows.get(key) != value:
            differing.append((key, value, time))
        rows[key] = value
    assert outputs("change") == differing


def sum_of(parts: list[int | None]) -> int:
    return sum(part or 0 for part in parts)
