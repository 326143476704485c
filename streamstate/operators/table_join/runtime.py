"""Joins of two tables with equal keys, as closures over changes."""

from __future__ import annotations

from typing import Any

from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.base.forwarding import Change
from streamstate.operators.base.joiners import Joiner
from streamstate.operators.base.rows import Getter


def side(
    name: str,
    joiner: Joiner,
    other: Getter,
    forward: Change,
    *,
    mine_alone: bool,
    other_alone: bool,
    needs_old: bool,
    with_key: bool,
) -> Change:
    """One side.

    Args:
        name: the operator's.
        joiner: (this side's value, the other's) to the result.
        other: looks up rows of the other table.
        forward: what follows.
        mine_alone: a row of this side without one of the other makes a result.
        other_alone: and the other way round.
        needs_old: whether old rows are asked for.
        with_key: the joiner takes the key too, in front.
    """

    def joined(key: Any, mine: Any, value: Any) -> Any:
        if mine is None and (value is None or not other_alone):
            return None
        try:
            return joiner(key, mine, value) if with_key else joiner(mine, value)
        except Exception as error:
            raise OperatorFailed(name) from error

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        found = other(key)
        if found is None:
            # No row of the other side, and none of this one, neither before nor now: there is no result to change.
            if not mine_alone or (new is None and old is None):
                return
            value = None
        else:
            value, other_time = found
            if other_time > timestamp:
                timestamp = other_time
        forward(key, joined(key, new, value), joined(key, old, value) if needs_old else None, timestamp)

    return run


def rows_joined(
    name: str, joiner: Joiner, left: Getter, right: Getter, *, left_alone: bool, right_alone: bool, with_key: bool
) -> Getter:
    """Rows of a join that keeps none, made of both tables' rows."""

    def row(key: Any) -> tuple[Any, int] | None:
        mine, other = left(key), right(key)
        if mine is None:
            if other is None or not right_alone:
                return None
            values, timestamp = (None, other[0]), other[1]
        elif other is None:
            if not left_alone:
                return None
            values, timestamp = (mine[0], None), mine[1]
        else:
            values, timestamp = (mine[0], other[0]), max(mine[1], other[1])
        try:
            value = joiner(key, *values) if with_key else joiner(*values)
        except Exception as error:
            raise OperatorFailed(name) from error
        return None if value is None else (value, timestamp)

    return row
