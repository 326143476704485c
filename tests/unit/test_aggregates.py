"""Ready aggregates: plain folds over plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate import TopologyError, aggregates
from streamstate.aggregates import Aggregate
from streamstate.sketches import HyperLogLog


def fold(aggregate: Aggregate, *values: object) -> object:
    state = aggregate.initial
    for value in values:
        state = aggregate.update(state, {"x": value})
    return aggregate.result(state)


@pytest.mark.parametrize(
    ("aggregate", "values", "expected"),
    [
        (aggregates.count(), (1, None, 3), 3),
        (aggregates.count("x"), (1, None, 3), 2),
        (aggregates.sum("x"), (1, None, 2.5), 3.5),
        (aggregates.sum("x"), (), 0),
        (aggregates.min("x"), (3, None, 1, 2), 1),
        (aggregates.max("x"), ("a", "c", "b"), "c"),
        (aggregates.max("x"), (None,), None),
        (aggregates.mean("x"), (1, None, 2), 1.5),
        (aggregates.mean("x"), (None,), None),
        (aggregates.max(lambda value: -value["x"]), (1, 2), -1),
    ],
)
def test_results(aggregate, values, expected):
    assert fold(aggregate, *values) == expected


@pytest.mark.parametrize("aggregate", [aggregates.sum("x"), aggregates.min("x"), aggregates.max("x")])
@pytest.mark.parametrize("value", [[1], {"a": 1}, (1, 2), b"1"])
def test_values_that_somebody_could_change_are_refused(aggregate, value):
    """Stores keep these states decoded, so a list in them could be changed from outside."""
    with pytest.raises(TypeError, match="takes numbers or text"):
        fold(aggregate, value)


def test_a_state_is_never_changed_in_place():
    mean = aggregates.mean("x")
    first = mean.update(mean.initial, {"x": 1})
    mean.update(first, {"x": 2})
    assert first == [1, 1]
    assert mean.initial == [0, 0]


def test_only_the_ready_ones_are_kept_decoded():
    assert aggregates.mean("x").plain
    assert not Aggregate("mine", (), lambda state, value: state, lambda state: state).plain


# -- those with values, and sketches -----------------------------------------------------------------------


def folded(aggregate: aggregates.Aggregate, values: Iterable[Any]) -> Any:
    state = aggregate.initial
    for value in values:
        state = aggregate.update(state, value)
    return state


READY = {
    "count": aggregates.count(),
    "sum": aggregates.sum(),
    "min": aggregates.min(),
    "max": aggregates.max(),
    "mean": aggregates.mean(),
    "first": aggregates.first(),
    "last": aggregates.last(),
    "collect": aggregates.collect(),
    "collect 3": aggregates.collect(limit=3),
    "top_k": aggregates.top_k(3),
    "approximate_distinct": aggregates.approximate_distinct(),
}


@pytest.mark.parametrize("name", READY)
@given(st.lists(st.integers(-50, 50) | st.none()), st.integers(0, 10))
def test_merging_is_as_folding_one_after_the_other(name: str, values: list[int | None], cut: int) -> None:
    ready = READY[name]
    assert ready.merge is not None
    one, other = folded(ready, values[:cut]), folded(ready, values[cut:])
    before = orjson.dumps([one, other], default=bytes.hex)
    assert ready.result(ready.merge(one, other)) == ready.result(folded(ready, values))
    assert ready.merge(ready.initial, other) == other
    assert ready.merge(one, ready.initial) == one
    assert orjson.dumps([one, other], default=bytes.hex) == before, "a merger changes nothing"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5))), st.integers(0, 10))
def test_earliest_and_latest_go_by_time_then_by_arrival(pairs: list[tuple[int, int]], cut: int) -> None:
    for ready, best in ((aggregates.earliest(), min), (aggregates.latest(), max)):
        assert ready.merge is not None
        wanted = None
        if pairs:
            time = best(time for _, time in pairs)
            of_that_time = [value for value, other in pairs if other == time]
            wanted = of_that_time[0] if best is min else of_that_time[-1]
        assert ready.result(folded(ready, pairs)) == wanted
        assert ready.result(ready.merge(folded(ready, pairs[:cut]), folded(ready, pairs[cut:]))) == wanted


@given(st.lists(st.integers(0, 20)), st.integers(1, 5))
def test_top_k_is_a_stable_sort_cut_off(ranks: list[int], k: int) -> None:
    values = [{"rank": rank, "at": at} for at, rank in enumerate(ranks)]
    ready = aggregates.top_k(k, "at", by="rank")
    wanted = [value["at"] for value in sorted(values, key=lambda value: -value["rank"])][:k]
    assert ready.result(folded(ready, values)) == wanted


@pytest.mark.parametrize("precision", [6, 10, 12, 14])
def test_the_error_of_a_sketch_is_as_stated(precision: int) -> None:
    sketch = HyperLogLog(precision)
    errors = []
    for seed in range(12):
        state = b""
        for number in range(1, 3_001):
            state = sketch.add(state, f"{seed}:{number}")
            if number in (10, 100, 1_000, 3_000):
                errors.append(sketch.estimate(state) / number - 1)
        assert len(state) <= 1 << precision
    standard = 1.04 / 2 ** (precision / 2)
    assert (sum(error**2 for error in errors) / len(errors)) ** 0.5 < 1.3 * standard
    assert max(map(abs, errors)) < 4 * standard


@given(st.lists(st.integers(0, 3_000), max_size=400), st.lists(st.integers(0, 3_000), max_size=400), st.integers(4, 9))
def test_sketches_are_sets(one: list[int], other: list[int], precision: int) -> None:
    sketch = HyperLogLog(precision)

    def of(values: Iterable[int]) -> bytes:
        state = b""
        for value in values:
            state = sketch.add(state, value)
        return state

    assert of(one + other) == of([*reversed(other), *one, *one])
    merged = sketch.merge(of(one), of(other))
    assert sketch.estimate(merged) == sketch.estimate(of(one + other))
    assert sketch.merge(of(other), of(one)) == merged


def test_a_sketch_tells_values_apart_by_what_they_are() -> None:
    values = [1, 1.0, "1", b"1", True, 1.5, [1], {"a": 1, "b": 2}, {"b": 2, "a": 1}, 10**15, 1e15]
    ready = aggregates.approximate_distinct()
    assert ready.result(folded(ready, values)) == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: aggregates.approximate_distinct(precision=3),
        lambda: aggregates.approximate_distinct(precision=17),
        lambda: aggregates.top_k(0),
        lambda: aggregates.collect(limit=0),
    ],
)
def test_bounds_that_are_none_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(TopologyError):
        make()
