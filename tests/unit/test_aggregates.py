"""Ready aggregates: plain folds over plain values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from hashlib import blake2b
from math import inf, nan
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate import ProcessingError, Serde, Topology, TopologyError, aggregates, serde, windows
from streamstate.aggregates import Aggregate
from streamstate.aggregates.sketches import HyperLogLog, hash64
from streamstate.testing.driver.driver import TopologyTestDriver


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


# -- values that JSON does not have ------------------------------------------------------------------------

MOMENTS = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
TAGS = [{"base64": "aGk="}, {"$type": ["int", "0x1"]}]
LARGE = [2**64 + 1, 2**64 + 2, -(2**70)]


@pytest.mark.parametrize(
    ("aggregate", "values", "expected"),
    [
        (aggregates.sum("x"), LARGE, sum(LARGE)),
        (aggregates.min("x"), LARGE, -(2**70)),
        (aggregates.sum("x"), [Decimal("0.1"), Decimal("0.20")], Decimal("0.30")),
        (aggregates.mean("x"), [Decimal("0.1"), Decimal("0.2")], Decimal("0.15")),
        (aggregates.max("x"), [Decimal("NaN")], Decimal("NaN")),
        (aggregates.max("x"), [1.0, inf], inf),
        (aggregates.sum("x"), [1.0, nan], nan),
        (aggregates.max("x"), MOMENTS, MOMENTS[2]),
        (aggregates.min("x"), [timedelta(seconds=2), timedelta(seconds=1)], timedelta(seconds=1)),
        *((made("x"), MOMENTS, MOMENTS[0]) for made in (aggregates.first, aggregates.earliest)),
        *((made("x"), MOMENTS, MOMENTS[2]) for made in (aggregates.last, aggregates.latest)),
        (aggregates.collect("x"), [b"a", (1, (2,)), {3, 4}], [b"a", (1, (2,)), {3, 4}]),
        (aggregates.collect("x"), TAGS, TAGS),
        (aggregates.collect("x"), [UUID(int=1), nan, -inf, {1: "a"}], [UUID(int=1), nan, -inf, {1: "a"}]),
        (aggregates.top_k(2, "x"), MOMENTS, [MOMENTS[2], MOMENTS[1]]),
        (aggregates.top_k(1, "x", by=lambda value: len(value["x"])), [b"a", b"bc"], [b"bc"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
@pytest.mark.parametrize("disk", ["kept", "lost"])
@pytest.mark.parametrize("policy", ["fail", "continue"])
@pytest.mark.parametrize("windowed", [False, True])
def test_results_have_the_types_of_the_values_live_and_after_a_crash(
    aggregate: Aggregate, values: list[Any], expected: Any, disk: Any, policy: Any, windowed: bool
) -> None:
    """Each value meets the state in memory, after a commit, and read back after a crash; each policy has its store."""
    carried: Serde[Any] = Serde("index", lambda value: b"%d" % value, lambda data: {"x": values[int(data)]})
    topology = Topology("types")
    grouped: Any = topology.stream("in", value=carried, on_error=policy).group_by_key()
    if windowed:
        grouped = grouped.windowed_by(windows.tumbling(timedelta(days=1)))
    shown: list[Any] = []
    grouped.aggregate(r=aggregate, n=aggregates.count(), store="s").to_stream().for_each(
        lambda key, result: shown.append(result["r"])
    )
    results = []
    for crash in (False, True):
        shown.clear()
        with TopologyTestDriver(topology) as driver:
            for index in range(len(values)):
                driver.input("in", value=serde.string()).pipe(b"k", str(index), timestamp=index)
                if crash:
                    driver.crash(disk=disk)
            assert driver.status().failed == 0
        results.append(list(shown))
    assert repr(results[0][-1]) == repr(expected)
    assert repr(results[0]) == repr(results[1])


class Level(IntEnum):
    LOW = 1


@pytest.mark.parametrize("policy", ["fail", "continue"])
@pytest.mark.parametrize(
    ("aggregate", "value", "said"),
    [
        (aggregates.collect("x"), Fraction(1, 3), "aggregate 'r' in store 's' cannot be kept: .*fractions.Fraction"),
        (aggregates.last("x"), [Level.LOW], "aggregate 'r' in store 's' cannot be kept: .*Level"),
        (aggregates.top_k(1, "x", by=lambda value: Fraction(1)), 1, "aggregate 'r' in store 's' .*fractions.Fraction"),
        (aggregates.sum("x"), Fraction(1, 3), "'s.*aggregates.sum takes numbers or text, not fractions.Fraction"),
        (aggregates.max("x"), Level.LOW, r"'s.*aggregates.max takes numbers or text or times, not .*Level"),
        (aggregates.mean("x"), Fraction(1, 3), "'s.*aggregates.mean takes numbers, not fractions.Fraction"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_would_not_come_back_fails_its_record_by_its_policy(
    aggregate: Aggregate, value: Any, said: str, policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    carried: Serde[Any] = Serde("one", lambda value: b"", lambda data: {"x": value})
    topology = Topology("refused")
    stream = topology.stream("in", value=carried, on_error=policy)
    stream.group_by_key().aggregate(r=aggregate, n=aggregates.count(), store="s")
    with TopologyTestDriver(topology) as driver:
        into = driver.input("in", value=serde.string())
        if policy == "fail":
            with pytest.raises(ProcessingError, match=said) as failure:
                into.pipe(b"k", "x")
            assert "topic 'in', partition 0, offset 0, key b'k'" in str(failure.value)
            return
        into.pipe(b"k", "x")
        assert driver.status().failed == 1
        assert re.search(said, caplog.text)
        assert list(driver.store("s").all()) == []


def test_distinct_values_that_json_does_not_have_are_distinct() -> None:
    distinct = aggregates.approximate_distinct("x")
    values = [
        *(2**64, 2**64 + 1, 2**64 + 2, -(2**64), 10**400, 10**400 + 1, 10**5_000),
        *(nan, inf, -inf, [nan], [inf], [None], [2**64], [2**64 + 1], (b"x",), b"x", Decimal("0.1"), {1: 2}),
    ]
    assert fold(distinct, *values) == len(values)
    assert fold(distinct, *values, *values) == len(values)


def test_equal_values_are_counted_once_whatever_their_form() -> None:
    distinct = aggregates.approximate_distinct("x")
    assert fold(distinct, 2**70, float(2**70), 1, 1.0, [1], (1,)) == 3
    assert fold(distinct, {1: b"a", 2: b"b"}, {2: b"b", 1: b"a"}, {"a": nan, "b": 1}, {"b": 1, "a": nan}) == 2


def test_sketches_that_are_stored_hash_as_they_did() -> None:
    for value in (0, -1, 2**63, 2**64 - 1, True, 0.5, [1, None, "a"], {"b": 1, "a": [2.5]}, None):
        data = b"j" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        assert hash64(value) == int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
