"""Streams as tables, and tables as streams of what differs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import Stream, Table, Topology, TopologyError, serde, windows
from streamstate.graph.describe import describe_text
from streamstate.graph.plan import plan_topics
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, LONG, JSON = serde.string(), serde.long(), serde.json()


def out(driver: TopologyTestDriver) -> list[tuple[Any, Any, int]]:
    return [(record.key, record.value, record.timestamp) for record in driver.output("out").read_all()]


def numbers() -> tuple[Topology, Stream[str, int]]:
    topology = Topology("t")
    return topology, topology.stream("in", key=TEXT, value=LONG)


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_the_newest_record_of_a_key_is_its_row(disk: Any) -> None:
    topology, stream = numbers()
    stream.filter(lambda key, value: value != 5).to_table(store="rows").to_stream().to("out", value=LONG)
    with TopologyTestDriver(topology) as driver:
        for key, value, time in (("a", 1, 20), ("b", 2, 5), (None, 3, 6), ("a", 4, 10), ("b", None, 30), ("a", 5, 40)):
            driver.input("in").pipe(key, value, timestamp=time)
        driver.crash(disk=disk)
        # By offset, as the rows of a topic are.
        assert list(driver.store("rows").all()) == [("a", 4)]
        assert out(driver) == [("a", 1, 20), ("b", 2, 5), ("a", 4, 10), ("b", None, 30)]
        assert [topic for topic in driver.broker.topics() if "rows" in topic] == ["t-rows-changelog"]


def test_a_null_key_is_counted() -> None:
    topology, stream = numbers()
    stream.to_table().to_stream().to("out")
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe(None, 1, timestamp=5)
        assert driver.status().dropped == 1
        assert out(driver) == []


def test_rows_are_kept_only_where_something_needs_them() -> None:
    topology, stream = numbers()
    table = stream.to_table()
    assert topology.build().stores == {}
    table.join(topology.table("other", key=TEXT, value=LONG), max).to_stream().to("out", value=LONG)
    assert sorted(topology.build().stores) == ["in.to_table", "other.table"]
    assert table.store == "in.to_table"


def test_a_changed_key_goes_through_a_repartition_topic() -> None:
    topology, stream = numbers()
    table = stream.map(lambda key, value: (key[:1], value)).to_table(key=TEXT, value=LONG, store="rows")
    table.to_stream().to("out")
    assert plan_topics(topology.build(), "app", {"in": 3}).internal[0].name == "app-rows-repartition"
    with TopologyTestDriver(topology, partitions=3) as driver:
        driver.input("in").pipe("abc", 1, timestamp=5)
        driver.input("in").pipe("aa", 2, timestamp=3)
        assert driver.store("rows").get("a") == 2
        assert out(driver) == [("a", 1, 5), ("a", 2, 3)]


def test_versions_of_a_stream() -> None:
    topology, stream = numbers()
    table = stream.to_table(versioned=timedelta(seconds=1), store="rows")
    asked = topology.stream("asked", key=TEXT, value=LONG)
    asked.left_join(table, lambda one, other: [one, other]).to("out", value=JSON)
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("a", 1, timestamp=100)
        driver.input("in").pipe("a", 2, timestamp=200)
        driver.input("asked").pipe("a", 9, timestamp=150)
        assert out(driver) == [("a", [9, 1], 150)]


def test_names_that_would_shift_are_refused() -> None:
    _, stream = numbers()
    stream.to_table()
    with pytest.raises(TopologyError, match=r"to_table after 'in' would be called 'in.to_table-2'.*pass store="):
        stream.to_table()
    stream.to_table(name="other")
    with pytest.raises(TopologyError, match="two stores are named 'rows'"):
        (stream.to_table(store="rows"), stream.to_table(store="rows", name="again"))
    with pytest.raises(TopologyError, match="emit='update' or 'change', not 'commit'"):
        stream.to_table(emit="commit")  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match="needs the serde of the value"):
        stream.map_values(lambda value: value).to_table()


def test_it_can_be_grouped() -> None:
    topology, stream = numbers()
    groups = stream.to_table().group_by(lambda key, value: value % 2, key=LONG)
    groups.count(store="n").to_stream(emit="commit").to("out")
    with TopologyTestDriver(topology) as driver:
        for key, value in (("a", 1), ("b", 3), ("a", 2), ("b", None)):
            driver.input("in").pipe(key, value, timestamp=5)
        assert driver.output("out").newest() == {0: 1, 1: 0}


# -- what differs ---------------------------------------------------------------------------------------------------


def changing(make: Any) -> list[Any]:
    """Values that come of 1, 1, 2, None, None, 2, 2."""
    topology, stream = numbers()
    table: Table[Any, Any] = make(topology, stream)
    table.to_stream(emit="change").to("out", value=JSON)
    with TopologyTestDriver(topology) as driver:
        for time, value in enumerate((1, 1, 2, None, None, 2, 2)):
            driver.input("in").pipe("a", value, timestamp=time)
        return [record.value for record in driver.output("out").read_all()]


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda t, s: s.to_table(), [1, 2, None, 2]),
        (lambda t, s: s.to_table().map_values(lambda value: value % 1), [0, None, 0]),
        (lambda t, s: s.to_table().map_values(lambda value: [value // 2]), [[0], [1], None, [1]]),
        (lambda t, s: s.to_table().filter(lambda key, value: value > 1), [2, None, 2]),
        (lambda t, s: s.to_table().filter(lambda key, value: value > 1, store="kept"), [2, None, 2]),
        (lambda t, s: s.group_by_key().reduce(max, store="s"), [1, 2]),
        (lambda t, s: s.group_by_key().count(store="s"), [1, 2, 3, 4, 5]),
        (
            lambda t, s: s.group_by_key().aggregate(
                initializer=list,
                aggregator=lambda key, value, seen: seen if value in seen else [*seen, value],
                value=JSON,
                store="s",
            ),
            [[1], [1, 2]],
        ),
        (
            # Changed in place.
            lambda t, s: s.group_by_key().aggregate(
                initializer=list, aggregator=lambda key, value, seen: seen.append(value) or seen, value=JSON, store="s"
            ),
            [[1], [1, 1], [1, 1, 2], [1, 1, 2, 2], [1, 1, 2, 2, 2]],
        ),
        (
            lambda t, s: s.to_table().left_join(s.to_table(store="o"), lambda one, other: other), [1, 2, None, 2],
        ),
    ],
)  # fmt: skip
def test_only_what_differs_is_sent(make: Any, values: list[Any]) -> None:
    assert changing(make) == values


def test_windows_changed_in_place_are_sent_on() -> None:
    topology, stream = numbers()
    hours = stream.group_by_key().windowed_by(windows.tumbling(timedelta(hours=1)))
    seen = hours.aggregate(
        initializer=list, aggregator=lambda key, value, seen: seen.append(value) or seen, value=JSON, store="s"
    )
    seen.to_stream(emit="change").to("out")
    most = hours.reduce(max, store="most")
    most.to_stream(emit="change").to("most")
    with TopologyTestDriver(topology) as driver:
        for value in (1, 1, 2):
            driver.input("in").pipe("a", value, timestamp=5)
        assert driver.output("out").values() == [[1], [1, 1], [1, 1, 2]]
        assert driver.output("most").values() == [1, 2]


@pytest.mark.parametrize(
    "made",
    [
        windows.tumbling(timedelta(seconds=10), grace=timedelta(minutes=1)),
        windows.hopping(timedelta(seconds=10), timedelta(seconds=5), grace=timedelta(minutes=1)),
        windows.sliding(timedelta(seconds=10), grace=timedelta(minutes=1)),
        windows.session(timedelta(seconds=10), grace=timedelta(minutes=1)),
    ],
    ids=lambda made: type(made).__name__,
)
@pytest.mark.parametrize("in_place", [False, True])
def test_windows_are_grouped_by_what_they_were_also_when_a_function_changes_them_in_place(
    made: Any, in_place: bool
) -> None:
    def add(key: Any, value: int, seen: list[int]) -> list[int]:
        if not in_place:
            return [*seen, value]
        seen.append(value)
        return seen

    def merge(key: Any, one: list[int], other: list[int]) -> list[int]:
        if not in_place:
            return [*one, *other]
        one.extend(other)
        return one

    topology, stream = numbers()
    by_window: Any = stream.group_by_key().windowed_by(made)
    functions: Any = {"initializer": list, "aggregator": add}
    if isinstance(made, windows.SessionWindows):
        functions["merger"] = merge
    rows = by_window.aggregate(**functions, value=JSON, store="s")
    lengths = rows.group_by(lambda key, seen: "all", key=TEXT, select=lambda key, seen: len(seen), value=LONG)
    lengths.reduce(lambda one, other: one + other, lambda one, other: one - other, store="n").to_stream().to("out")
    with TopologyTestDriver(topology) as driver:
        for number, time in enumerate((0, 3_000, 20_000, 12_000, 4_000)):
            driver.input("in").pipe("a", number, timestamp=time)
        wanted = sum(len(seen) for _, seen in driver.store("s").all())
        assert driver.output("out").newest() == {"all": wanted}


def test_another_emit_is_refused() -> None:
    _, stream = numbers()
    with pytest.raises(TopologyError, match="takes emit='update', 'change' or 'commit', not 'close'"):
        stream.to_table().to_stream(emit="close")  # type: ignore[arg-type]


def test_the_description_says_so() -> None:
    topology, stream = numbers()
    stream.to_table(store="rows").to_stream(emit="change").to("out")
    text = describe_text(topology.build(), "app")
    assert "to_table" in text
    assert "change" in text


def test_a_key_that_became_null_is_left_out_behind_the_repartition_topic() -> None:
    topology, stream = numbers()
    stream.select_key(lambda key, value: None if value == 2 else key).to_table(key=TEXT, store="rows").to_stream().to(
        "out", value=LONG
    )
    with TopologyTestDriver(topology) as driver:
        for value in (1, 2, 3):
            driver.input("in").pipe("a", value, timestamp=5)
        assert out(driver) == [("a", 1, 5), ("a", 3, 5)]
        assert driver.status().dropped == 1
