"""Ready aggregates: plain folds over plain values."""

from __future__ import annotations

import pytest

from streamstate import aggregates
from streamstate.aggregates import Aggregate


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
