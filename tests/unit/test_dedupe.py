"""``Stream.dedupe``: the first record of each identity passes, repetitions of it do not, for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import Topology, TopologyError, serde
from streamstate.testing import TopologyTestDriver

Order = tuple[str, dict[str, Any]]


def order(number: str | None, at: int) -> Order:
    return "a customer", {"id": number, "at": at}


def passed(*orders: Order, within: Any = "1s", by: Any = "id", **options: Any) -> list[tuple[Any, Any]]:
    topology = Topology("t", key=str, value=dict)
    topology.stream("orders", timestamp="at").dedupe(within, by=by, store="seen", **options).to("out")
    with TopologyTestDriver(topology) as driver:
        driver.input("orders").pipe_all(orders)
        return [(record["id"], record["at"]) for record in driver.output("out", key=str, value=dict).values()]


def test_a_repetition_is_left_out_until_the_time_is_over() -> None:
    orders = [order("1", 0), order("1", 500), order("2", 600), order("1", 999), order("1", 1_000), order("1", 1_999)]
    assert passed(*orders) == [("1", 0), ("2", 600), ("1", 1_000)]


def test_repetitions_do_not_prolong_the_time() -> None:
    assert passed(*(order("1", at) for at in range(0, 2_100, 300))) == [("1", 0), ("1", 1_200)]


def test_records_out_of_order_repeat_too_and_late_ones_pass() -> None:
    orders = [order("1", 5_000), order("1", 4_500), order("2", 3_000), order("2", 3_100)]
    # Nobody remembers what came at 3,000 ms: the time of the task is a second past it.
    assert passed(*orders) == [("1", 5_000), ("2", 3_000), ("2", 3_100)]


def test_records_without_an_identity_all_pass() -> None:
    assert passed(order(None, 0), order(None, 1)) == [(None, 0), (None, 1)]


def test_by_default_the_key_is_the_identity() -> None:
    orders = [("a", {"id": "1", "at": 0}), ("b", {"id": "1", "at": 1}), ("a", {"id": "2", "at": 2})]
    assert passed(*orders, by=None) == [("1", 0), ("1", 1)]


def test_by_takes_a_function_and_identities_of_any_type() -> None:
    assert passed(order("1", 0), order("1", 1), by=lambda key, value: [key, value["at"] % 2], identity=list) == [
        ("1", 0),
        ("1", 1),
    ]


def test_what_was_left_out_is_counted() -> None:
    topology = Topology("t", key=str, value=dict)
    topology.stream("orders", timestamp="at").dedupe("1s", by="id", store="seen").to("out")
    with TopologyTestDriver(topology) as driver:
        driver.input("orders").pipe_all([order("1", 0), order("1", 1), order("1", 2)])
        assert driver.status().dropped == 2


def test_it_remembers_over_a_crash() -> None:
    topology = Topology("t", key=str, value=dict)
    topology.stream("orders", timestamp="at").dedupe("1h", by="id", store="seen").to("out")
    with TopologyTestDriver(topology) as driver:
        orders = driver.input("orders")
        orders.pipe_all([order("1", 0), order("2", 1)])
        driver.commit()
        driver.crash(disk="lost")
        orders.pipe_all([order("1", 2), order("3", 3)])
        out = driver.output("out", key=str, value=dict)
        assert [record["id"] for record in out.values()] == ["1", "2", "3"]


def test_a_record_that_fails_behind_it_is_not_remembered() -> None:
    topology = Topology("t", key=str, value=dict)
    orders = topology.stream("orders", timestamp="at", on_error="continue").dedupe("1h", by="id", store="seen")
    orders.map_values(lambda value: 1 // value["divisor"], value=int).to("out")
    with TopologyTestDriver(topology) as driver:
        driver.input("orders").pipe_all(
            [("a", {"id": "1", "at": at, "divisor": divisor}) for at, divisor in ((0, 0), (1, 1), (2, 1))]
        )
        assert driver.output("out", key=str, value=int).values() == [1]


def test_a_changed_key_goes_through_a_repartition_topic() -> None:
    topology = Topology("t", value=dict)
    topology.stream("orders", timestamp="at").select_key("id", key=str).dedupe("1s", store="seen").to("out")
    graph = topology.build()
    assert [part.name for part in graph.subtopologies] == ["orders", "seen-repartition"]


@pytest.mark.parametrize("within", ["0", "soon", 5, timedelta(microseconds=1)])
def test_a_time_that_is_none_is_refused(within: Any) -> None:
    with pytest.raises(TopologyError, match="within= of store 'seen' is a duration of one millisecond or more"):
        Topology("t", key=str).stream("in").dedupe(within, store="seen")


def test_an_unknown_serde_of_the_key_is_refused() -> None:
    topology = Topology("t")
    with pytest.raises(TopologyError, match=r"dedupe after .* needs the serde of the key"):
        topology.stream("in", value=serde.json()).select_key("id").dedupe("1s", store="seen")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3_000)), max_size=25))
def test_as_a_plain_model_says(records: list[tuple[str, int]]) -> None:
    expected, seen, now = [], dict[str, int](), -1
    for number, at in records:
        now = max(now, at)
        if number in seen and now - seen[number] < 1_000:
            continue
        expected.append((number, at))
        if now - at < 1_000:
            seen[number] = at
    assert passed(*(order(number, at) for number, at in records)) == expected
