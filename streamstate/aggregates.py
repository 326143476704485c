"""Ready aggregates for ``aggregate(name=aggregates.mean("field"), ...)``.

Rule of this module: pure folds. A state is never changed in place and holds numbers, strings and lists of them
only, so that stores may keep it decoded and write it as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Aggregate", "count", "max", "mean", "min", "sum"]

Selector = str | Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A fold over the values of one key.

    Attributes:
        name: what descriptions call it.
        initial: the state before the first value.
        update: (state, value) to the next state; must not change the state it is given.
        result: state to what the table shows.
        plain: true promises that states are numbers, text or lists of them which nobody else holds or changes, so
            that stores may keep them decoded. The ready ones promise it.
    """

    name: str
    initial: Any
    update: Callable[[Any, Any], Any]
    result: Callable[[Any], Any]
    plain: bool = False


def _select(selector: Selector) -> Callable[[Any], Any]:
    if selector is None:
        return lambda value: value
    if callable(selector):
        return selector
    field = selector
    return lambda value: value[field]


def _same(state: Any) -> Any:
    return state


def count(selector: Selector = None) -> Aggregate:
    """Number of records; with a selector, of those where the selected value is not None."""
    if selector is None:
        return Aggregate("count", 0, lambda state, value: state + 1, _same, True)
    select = _select(selector)
    return Aggregate("count", 0, lambda state, value: state if select(value) is None else state + 1, _same, True)


def _fold(name: str, selector: Selector, step: Callable[[Any, Any], Any], initial: Any = None) -> Aggregate:
    select = _select(selector)

    def update(state: Any, value: Any) -> Any:
        selected = select(value)
        if selected is None:
            return state
        if not isinstance(selected, int | float | str):
            raise TypeError(f"aggregates.{name} takes numbers or text, not {type(selected).__name__}")
        return selected if state is None else step(state, selected)

    return Aggregate(name, initial, update, _same, True)


def sum(selector: Selector = None) -> Aggregate:
    """Sum of the selected values, None skipped; 0 when there was none."""
    return _fold("sum", selector, lambda state, selected: state + selected, 0)


def min(selector: Selector = None) -> Aggregate:
    """Least of the selected values, None skipped; None when there was none."""
    return _fold("min", selector, lambda state, selected: selected if selected < state else state)


def max(selector: Selector = None) -> Aggregate:
    """Greatest of the selected values, None skipped; None when there was none."""
    return _fold("max", selector, lambda state, selected: selected if selected > state else state)


def mean(selector: Selector = None) -> Aggregate:
    """Arithmetic mean of the selected values, None skipped; None when there was none.

    >>> delays = mean("delay")
    >>> state = delays.initial
    >>> for flight in ({"delay": 2}, {"delay": None}, {"delay": 5}):
    ...     state = delays.update(state, flight)
    >>> delays.result(state)
    3.5
    """
    select = _select(selector)

    def update(state: Any, value: Any) -> Any:
        selected = select(value)
        return state if selected is None else [state[0] + selected, state[1] + 1]

    return Aggregate("mean", [0, 0], update, lambda state: state[0] / state[1] if state[1] else None, True)
