"""What each operator does to records, through a topology on the in-memory broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamstate import ProcessingError, Stream, Topology, aggregates, serde
from tests.unit.application_support import START_MS, Pair, Run

TEXT = serde.string()
NUMBER = serde.long()


def long(value: int) -> bytes:
    return NUMBER.serialize(value)


def passed(
    build: Callable[[Stream[str, str]], Stream[Any, Any]], *records: Any, key: Any = TEXT, value: Any = TEXT
) -> list[Pair]:
    """What comes out of ``build`` for these records."""
    topology = Topology("t")
    build(topology.stream("in", key=TEXT, value=TEXT)).to("out", key=key, value=value)
    run = Run(topology)
    run.send(*records)
    run.ticks()
    assert run.offset() == len(records)
    return run.out()


ABC = [(b"a", b"1"), (b"b", b"22"), (b"c", b"333")]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda s: s.filter(lambda k, v: len(v) > 1), [(b"b", b"22"), (b"c", b"333")]),
        (lambda s: s.filter_not(lambda k, v: len(v) > 1), [(b"a", b"1")]),
        (lambda s: s.filter(lambda k, v: []), []),
        (lambda s: s.map(lambda k, v: (v, k)), [(b"1", b"a"), (b"22", b"b"), (b"333", b"c")]),
        (lambda s: s.map_values(str.__len__).map_values(str), [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]),
        (lambda s: s.select_key(lambda k, v: v + k), [(b"1a", b"1"), (b"22b", b"22"), (b"333c", b"333")]),
        (lambda s: s.flat_map(lambda k, v: [(v, k)] * (len(v) - 1)), [(b"22", b"b"), (b"333", b"c"), (b"333", b"c")]),
        (lambda s: s.flat_map(lambda k, v: ((c, k) for c in v if v == "22")), [(b"2", b"b"), (b"2", b"b")]),
        (lambda s: s.flat_map_values(lambda v: v), [(b"a", b"1")] + [(b"b", b"2")] * 2 + [(b"c", b"3")] * 3),
        (lambda s: s.flat_map_values(lambda v: ()), []),
        (lambda s: s.flat_map_values(lambda v: {v: 0}), ABC),
        (lambda s: s.map_values(lambda v: None), [(b"a", None), (b"b", None), (b"c", None)]),
        (lambda s: s.select_key(lambda k, v: None), [(None, b"1"), (None, b"22"), (None, b"333")]),
    ],
)
def test_stateless(build: Callable[[Stream[str, str]], Stream[Any, Any]], expected: list[Pair]) -> None:
    assert passed(build, *ABC) == expected


def test_null_keys_and_values_pass_as_none() -> None:
    seen: list[tuple[Any, Any]] = []
    found = passed(lambda s: s.peek(lambda k, v: seen.append((k, v))), (None, b"1"), (b"k", None), (None, None))
    assert seen == [(None, "1"), ("k", None), (None, None)]
    assert found == [(None, b"1"), (b"k", None), (None, None)]


def test_empty_is_not_null() -> None:
    assert passed(lambda s: s, (b"", b"")) == [(b"", b"")]


def test_split_sends_to_the_first_branch_that_holds_and_the_rest_to_the_last() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    small, even, rest = stream.split(lambda k, v: len(v) < 2, lambda k, v: len(v) % 2 == 0)
    # Branches are read in any order, one of them twice.
    rest.to("rest")
    small.to("small")
    even.map_values(str.upper).to("even", value=TEXT)
    even.to("even")
    run = Run(topology)
    run.send(b"a", b"bb", b"ccc", b"", b"dddd")
    run.ticks()
    assert [value for _, value in run.out("small")] == [b"a", b""]
    assert [value for _, value in run.out("even")] == [b"BB", b"bb", b"DDDD", b"dddd"]
    assert [value for _, value in run.out("rest")] == [b"ccc"]


def test_an_unread_branch_drops_its_records() -> None:
    topology = Topology("t")
    first, _ = topology.stream("in", value=TEXT).split(lambda k, v: v == "a")
    first.to("out", value=TEXT)
    run = Run(topology)
    run.send(b"a", b"b")
    run.ticks()
    assert run.out() == [(b"k", b"a")]
    assert run.offset() == 2


def test_merge_passes_both_and_each_stream_fans_out_in_the_order_it_was_written() -> None:
    topology = Topology("t")
    stream = topology.stream("in", value=TEXT)
    loud = stream.map_values(str.upper)
    stream.merge(loud, stream.map_values(lambda v: v * 2)).to("out", value=TEXT)
    run = Run(topology)
    run.send(b"a", b"b")
    run.ticks()
    assert [sorted(v for _, v in run.out()[i : i + 3]) for i in (0, 3)] == [[b"A", b"a", b"aa"], [b"B", b"b", b"bb"]]


def test_for_each_ends_a_stream_and_peek_does_not() -> None:
    seen: list[str] = []
    topology = Topology("t")
    stream = topology.stream("in", value=TEXT)
    stream.for_each(lambda k, v: seen.append(f"each {v}"))
    stream.peek(lambda k, v: seen.append(f"peek {v}")).to("out", value=TEXT)
    run = Run(topology)
    run.send(b"a")
    run.ticks()
    assert seen == ["each a", "peek a"]
    assert run.out() == [(b"k", b"a")]


def test_several_topics_in_one_stream() -> None:
    topology = Topology("t")
    topology.stream(["north", "south"], value=TEXT).to("out", value=TEXT)
    run = Run(topology, {"north": 1, "south": 1})
    run.send(b"n", topic="north")
    run.send(b"s", topic="south")
    run.ticks(40)
    assert sorted(value or b"" for _, value in run.out()) == [b"n", b"s"]


def test_to_with_a_function_chooses_per_record() -> None:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).to(lambda k, v: f"out-{v}")
    run = Run(topology, {"in": 1, "out-a": 1, "out-b": 2})
    run.send((b"1", b"a"), (b"2", b"b"), (b"3", b"a"))
    run.ticks()
    assert run.out("out-a") == [(b"1", b"a"), (b"3", b"a")]
    assert run.out("out-b") == [(b"2", b"b")]


@pytest.mark.parametrize("topic", [None, "", 5])
def test_to_with_a_function_that_returns_no_topic(topic: Any) -> None:
    topology = Topology("t")
    topology.stream("in").to(lambda k, v: topic)
    run = Run(topology)
    run.send(b"a")
    with pytest.raises(ProcessingError, match=r"topic (that the )?function returned"):
        run.ticks()


def test_repartition_moves_each_key_to_its_partition_and_keeps_order_time_and_headers() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT).select_key(lambda k, v: v[0])
    stream.repartition(name="by-first", partitions=3, key=TEXT).to("out")
    run = Run(topology, {"in": 2, "out": 3})
    run.send(b"a1", b"b1", partition=0, timestamp=5, headers=[("h", b"1"), ("h", None)])
    run.send(b"a2", b"c1", partition=0, timestamp=4)
    run.ticks(8)
    records = run.broker.read("out")
    by_key: dict[bytes | None, list[Any]] = {}
    for record in records:
        by_key.setdefault(record.key(), []).append((record.value(), record.timestamp()[1], record.headers()))
    assert by_key == {
        b"a": [(b"a1", 5, [("h", b"1"), ("h", None)]), (b"a2", 4, None)],
        b"b": [(b"b1", 5, [("h", b"1"), ("h", None)])],
        b"c": [(b"c1", 4, None)],
    }
    assert run.broker.topic("app-by-first-repartition").config["retention.ms"] == "-1"


# -- tables ----------------------------------------------------------------------------------------------------


def table(**kinds: Any) -> Topology:
    topology = Topology("t")
    grouped = topology.stream("in", key=TEXT, value=NUMBER).group_by_key()
    emit = kinds.pop("emit", "update")
    if kinds.pop("count", False):
        grouped.count(store="s").to_stream(emit=emit).to("out", value=NUMBER)
    elif "reduce" in kinds:
        grouped.reduce(kinds["reduce"], store="s").to_stream(emit=emit).to("out", value=NUMBER)
    else:
        grouped.aggregate(store="s", **kinds).to_stream(emit=emit).to("out", value=serde.json())
    return topology


def send_numbers(run: Run, *records: tuple[bytes | None, int | None, int]) -> None:
    for key, number, timestamp in records:
        run.send((key, None if number is None else long(number)), timestamp=START_MS + timestamp)


MIXED = [(b"a", 5, 10), (b"b", 1, 20), (b"a", 3, 5), (None, 7, 30), (b"a", None, 40), (b"a", 9, 15)]


def test_count_leaves_out_null_keys_and_values_and_takes_the_greatest_time() -> None:
    run = Run(table(count=True))
    send_numbers(run, *MIXED)
    run.ticks()
    assert run.out() == [(b"a", long(1)), (b"b", long(1)), (b"a", long(2)), (b"a", long(3))]
    assert [time - START_MS for time in run.times()] == [10, 20, 10, 15]
    assert run.worker.status().dropped == 2
    assert run.offset() == len(MIXED)
    assert run.state("s") == {b"a": long(3), b"b": long(1)}


def test_reduce_starts_with_the_first_value() -> None:
    run = Run(table(reduce=lambda total, value: total * 10 + value))
    send_numbers(run, *MIXED)
    run.ticks()
    assert run.out() == [(b"a", long(5)), (b"b", long(1)), (b"a", long(53)), (b"a", long(539))]
    assert [time - START_MS for time in run.times()] == [10, 20, 10, 15]
    assert run.worker.status().dropped == 2


def test_aggregate_with_functions_may_change_its_state_in_place() -> None:
    topology = Topology("t")
    grouped = topology.stream("in", key=TEXT, value=NUMBER).group_by_key()

    def collect(key: str, value: int, seen: list[int]) -> list[int]:
        seen.append(value)
        return seen

    grouped.aggregate(initializer=list, aggregator=collect, value=serde.json(), store="s").to_stream().to(
        "out", value=serde.json()
    )
    run = Run(topology)
    send_numbers(run, *MIXED)
    run.ticks()
    assert run.out() == [(b"a", b"[5]"), (b"b", b"[1]"), (b"a", b"[5,3]"), (b"a", b"[5,3,9]")]
    assert [time - START_MS for time in run.times()] == [10, 20, 10, 15]
    run.restart(close=False)
    send_numbers(run, (b"a", 1, 0))
    run.ticks()
    assert run.out()[-1] == (b"a", b"[5,3,9,1]")


def test_a_reducer_that_returns_none_removes_the_key() -> None:
    run = Run(table(reduce=lambda total, value: None if value == 0 else total + value))
    send_numbers(run, (b"a", 1, 0), (b"a", 2, 0), (b"a", 0, 0), (b"a", 4, 0))
    run.ticks()
    assert run.out() == [(b"a", long(1)), (b"a", long(3)), (b"a", None), (b"a", long(4))]
    assert run.state("s") == {b"a": long(4)}


def test_named_aggregates() -> None:
    topology = Topology("t")
    grouped = topology.stream("in", key=TEXT, value=serde.json()).group_by_key()
    grouped.aggregate(
        n=aggregates.count(), some=aggregates.count("x"), total=aggregates.sum("x"), least=aggregates.min("x"),
        most=aggregates.max("x"), mean=aggregates.mean(lambda value: value["x"]), store="s",
    ).to_stream().to("out", value=serde.json())  # fmt: skip
    run = Run(topology)
    for x in (None, 4, 1):
        run.send(serde.json().serialize({"x": x}))
    run.ticks()
    run.restart()
    run.send(serde.json().serialize({"x": 7}))
    run.ticks()
    shown = [serde.json().deserialize(value) for _, value in run.out() if value is not None]
    assert shown == [
        {"n": 1, "some": 0, "total": 0, "least": None, "most": None, "mean": None},
        {"n": 2, "some": 1, "total": 4, "least": 4, "most": 4, "mean": 4.0},
        {"n": 3, "some": 2, "total": 5, "least": 1, "most": 4, "mean": 2.5},
        {"n": 4, "some": 3, "total": 12, "least": 1, "most": 7, "mean": 4.0},
    ]


def test_emit_commit_sends_the_newest_value_of_each_key_once_per_commit() -> None:
    run = Run(table(count=True, emit="commit"))
    run.ticks()
    send_numbers(run, (b"a", 1, 1), (b"b", 1, 9), (b"a", 1, 3), (b"a", 1, 2))
    run.ticks()
    assert sorted(run.out(), key=str) == [(b"a", long(3)), (b"b", long(1))]
    assert sorted(time - START_MS for time in run.times()) == [3, 9]
    run.ticks(8)
    send_numbers(run, (b"b", 1, 5))
    run.ticks()
    assert run.out()[2:] == [(b"b", long(2))]


def test_grouping_by_another_key_repartitions() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.group_by(lambda k, v: v, key=TEXT).count(store="s").to_stream().to("out", value=NUMBER)
    run = Run(topology, {"in": 3, "out": 3})
    for partition in range(3):
        run.send(b"x", b"y", partition=partition)
    run.ticks(8)
    assert [value for key, value in run.out() if key == b"x"] == [long(1), long(2), long(3)]
    assert [value for key, value in run.out() if key == b"y"] == [long(1), long(2), long(3)]


def test_headers_pass_through_every_operator_but_a_held_back_result() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    doubled = stream.filter(lambda k, v: True).map(lambda k, v: (k, v)).flat_map_values(lambda v: [v, v])
    doubled.to("out", key=TEXT, value=TEXT)
    counts = topology.stream("more", key=TEXT, value=TEXT).group_by_key().count(store="s")
    counts.to_stream().to("updates", value=NUMBER)
    counts.to_stream(emit="commit").to("commits", value=NUMBER)
    run = Run(topology, {"in": 1, "more": 1})
    headers: list[tuple[str, bytes | None]] = [("h", b"1"), ("n", None), ("h", b"2")]
    run.send(b"a", headers=headers)
    run.send(b"a", topic="more", headers=headers)
    run.ticks()
    assert [record.headers() for record in run.broker.read("out")] == [headers, headers]
    assert [record.headers() for record in run.broker.read("updates")] == [headers]
    assert [record.headers() for record in run.broker.read("commits")] == [None]


@pytest.mark.parametrize(
    ("timestamp", "records", "expected"),
    [
        ("t", [{"t": 7}], [7]),
        (lambda key, value: value["t"] + 1, [{"t": 7}, {"t": 3}], [8, 4]),
        (None, [{}], [START_MS]),
    ],
)
def test_event_time(timestamp: Any, records: list[Any], expected: list[int]) -> None:
    topology = Topology("t")
    topology.stream("in", value=serde.json(), timestamp=timestamp).to("out", value=serde.json())
    run = Run(topology)
    for record in records:
        run.send(serde.json().serialize(record), timestamp=START_MS)
    run.ticks()
    assert run.times() == expected


@pytest.mark.parametrize("bad", ["7", 7.0, True, None, -1])
def test_an_event_time_that_is_none_is_the_records_failure(bad: Any) -> None:
    topology = Topology("t")
    topology.stream("in", value=serde.json(), timestamp="t").to("out", value=serde.json())
    run = Run(topology)
    run.send(serde.json().serialize({"t": bad}))
    with pytest.raises(ProcessingError, match="an event time is a whole number of milliseconds"):
        run.ticks()
