"""Ready aggregates for ``aggregate(name=aggregates.mean("field"), ...)``.

Rule of this module: pure folds. A state is never changed in place and holds what ``streamstate.serde._tagged`` keeps,
so that it reads as what it was. Each can merge two states, for sessions that grow together: the first is that of the
earlier session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any, Final

from streamstate.aggregates.sketches import HyperLogLog
from streamstate.errors import TopologyError
from streamstate.functions import checked_function

__all__ = [
    "Aggregate",
    "approximate_distinct",
    "collect",
    "count",
    "earliest",
    "first",
    "last",
    "latest",
    "max",
    "mean",
    "min",
    "sum",
    "top_k",
]

Selector = str | Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A fold over the values of one key.

    Attributes:
        name: what descriptions call it.
        initial: the state before the first value.
        update: (state, value) to the next state; must not change the state it is given.
        result: state to what the table shows.
        plain: true promises that states are numbers, text, bytes, dates and times, or lists of them which nobody else
            holds or changes, so that stores may keep them decoded. The ready ones promise it where they see to it.
        merge: (state, state) to that of the values of both; must not change them. Sessions need it.
        timed: ``update`` takes (state, (value, event time in ms)).
        parameters: what its states depend on besides the name. A store whose states were made with others is refused.
    """

    name: str
    initial: Any
    update: Callable[[Any, Any], Any]
    result: Callable[[Any], Any]
    plain: bool = False
    merge: Callable[[Any, Any], Any] | None = None
    timed: bool = False
    parameters: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, ...]:
        """What a store remembers of it: its name and its parameters.

        >>> sum("amount").kind
        ('sum', "of='amount'")
        """
        return (self.name, *self.parameters)


def _parameters(**given: object) -> tuple[str, ...]:
    """Those that are not None. Functions cannot be told apart: of them only that there is one is remembered."""
    return tuple(
        f"{name}={'(function)' if callable(value) else repr(value)}"
        for name, value in given.items()
        if value is not None
    )


def _select(selector: Selector) -> Callable[[Any], Any]:
    if selector is None:
        return lambda value: value
    if isinstance(selector, str):
        return itemgetter(selector)
    checked_function(selector, "a selector of aggregates", "value")
    return selector


def _same(state: Any) -> Any:
    return state


def _add(first: Any, second: Any) -> Any:
    return first + second


def count(selector: Selector = None) -> Aggregate:
    """Number of records; with a selector, of those where the selected value is not None."""
    if selector is None:
        return Aggregate("count", 0, lambda state, value: state + 1, _same, True, _add)
    select, of = _select(selector), _parameters(of=selector)

    def update(state: int, value: Any) -> int:
        return state if select(value) is None else state + 1

    return Aggregate("count", 0, update, _same, True, _add, parameters=of)


# What stores may keep decoded, and what comes back as itself: not a subclass, such as a number of numpy or of an enum.
_NUMBERS: Final = frozenset((int, float, bool, Decimal))
_TEXT: Final = frozenset((str,))
_TIMES: Final = frozenset((datetime, date, time, timedelta))
_ORDERED: Final = _NUMBERS | _TEXT | _TIMES


def _refused(name: str, takes: str, value: Any) -> TypeError:
    kind = type(value)
    given = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return TypeError(f"aggregates.{name} takes {takes}, not {given}")


def _fold(
    name: str,
    selector: Selector,
    step: Callable[[Any, Any], Any],
    initial: Any = None,
    kinds: frozenset[type] = _NUMBERS | _TEXT,
) -> Aggregate:
    select = _select(selector)

    def update(state: Any, value: Any) -> Any:
        selected = select(value)
        if type(selected) not in kinds:
            if selected is None:
                return state
            takes = "numbers or text" if kinds.isdisjoint(_TIMES) else "numbers or text or times"
            raise _refused(name, takes, selected)
        return selected if state is None else step(state, selected)

    def merge(one: Any, other: Any) -> Any:
        if one is None or other is None:
            return other if one is None else one
        return step(one, other)

    return Aggregate(name, initial, update, _same, True, merge, parameters=_parameters(of=selector))


def sum(selector: Selector = None) -> Aggregate:
    """Sum of the selected values, None skipped; 0 when there was none. Of integers it is exact, however large."""
    return _fold("sum", selector, lambda state, selected: state + selected, 0)


def min(selector: Selector = None) -> Aggregate:
    """Least of the selected values, None skipped; None when there was none."""
    return _fold("min", selector, lambda state, selected: selected if selected < state else state, None, _ORDERED)


def max(selector: Selector = None) -> Aggregate:
    """Greatest of the selected values, None skipped; None when there was none."""
    return _fold("max", selector, lambda state, selected: selected if selected > state else state, None, _ORDERED)


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
        if type(selected) not in _NUMBERS:
            if selected is None:
                return state
            raise _refused("mean", "numbers", selected)
        return [state[0] + selected, state[1] + 1]

    return Aggregate(
        "mean",
        [0, 0],
        update,
        lambda state: state[0] / state[1] if state[1] else None,
        True,
        lambda one, other: [one[0] + other[0], one[1] + other[1]],
        parameters=_parameters(of=selector),
    )


def _only(state: Any) -> Any:
    return state[-1] if state else None


def first(selector: Selector = None) -> Aggregate:
    """The selected value that came first, None skipped; None when there was none.

    Kafka's order counts, not event time: for that see ``earliest``. Of sessions that grow together, that of the
    earlier one.
    """
    select = _select(selector)

    def update(state: Any, value: Any) -> Any:
        if state:
            return state
        selected = select(value)
        return state if selected is None else [selected]

    of = _parameters(of=selector)
    return Aggregate("first", [], update, _only, merge=lambda one, other: one or other, parameters=of)


def last(selector: Selector = None) -> Aggregate:
    """The selected value that came last, None skipped; None when there was none.

    Kafka's order counts, not event time: for that see ``latest``. Of sessions that grow together, that of the later
    one, until the next record comes.
    """
    select = _select(selector)

    def update(state: Any, value: Any) -> Any:
        selected = select(value)
        return state if selected is None else [selected]

    of = _parameters(of=selector)
    return Aggregate("last", [], update, _only, merge=lambda one, other: other or one, parameters=of)


def _by_time(name: str, selector: Selector, replaces: Callable[[int, int], bool]) -> Aggregate:
    select = _select(selector)

    def update(state: Any, pair: tuple[Any, int]) -> Any:
        selected = select(pair[0])
        if selected is None or (state and not replaces(pair[1], state[0])):
            return state
        return [pair[1], selected]

    def merge(one: Any, other: Any) -> Any:
        if not one or not other:
            return one or other
        return other if replaces(other[0], one[0]) else one

    return Aggregate(name, [], update, _only, merge=merge, timed=True, parameters=_parameters(of=selector))


def earliest(selector: Selector = None) -> Aggregate:
    """The selected value of the least event time, None skipped; of equal times, the one that came first.

    >>> opening = earliest("price")
    >>> state = opening.update(opening.initial, ({"price": 3}, 2_000))
    >>> opening.result(opening.update(state, ({"price": 4}, 1_000)))
    4
    """
    return _by_time("earliest", selector, lambda new, old: new < old)


def latest(selector: Selector = None) -> Aggregate:
    """The selected value of the greatest event time, None skipped; of equal times, the one that came last."""
    return _by_time("latest", selector, lambda new, old: new >= old)


def _at_least_one(name: str, number: object) -> None:
    if not isinstance(number, int) or number < 1:
        raise TopologyError(f"aggregates.{name} takes a whole number of 1 or more, not {number!r}")


def collect(selector: Selector = None, *, limit: int | None = None) -> Aggregate:
    """The selected values as a list, in Kafka's order, None skipped. The list is written anew for each record, so it is
    for short ones.

    Args:
        selector: a field, or a function of the value.
        limit: most values; later ones are left out. None: all.

    Raises:
        TopologyError: the limit is below 1.
    """
    if limit is not None:
        _at_least_one("collect(limit=)", limit)
    select = _select(selector)

    def update(state: Any, value: Any) -> Any:
        selected = select(value)
        if selected is None or (limit is not None and len(state) >= limit):
            return state
        return [*state, selected]

    told = _parameters(of=selector, limit=limit)
    return Aggregate("collect", [], update, list, merge=lambda one, other: (one + other)[:limit], parameters=told)


def top_k(k: int, selector: Selector = None, *, by: Selector = None) -> Aggregate:
    """The ``k`` greatest of the selected values, greatest first; of equal ones, those that came first.

    Args:
        k: how many.
        selector: what to show: a field, or a function of the value; None skipped.
        by: what to compare: a field, or a function of the value; by default what is shown.

    Raises:
        TopologyError: ``k`` is below 1.

    >>> slowest = top_k(2, "carrier", by="delay")
    >>> state = slowest.initial
    >>> for carrier, delay in (("AA", 5), ("UA", 20), ("DL", 7)):
    ...     state = slowest.update(state, {"carrier": carrier, "delay": delay})
    >>> slowest.result(state)
    ['UA', 'DL']
    """
    _at_least_one("top_k", k)
    select = _select(selector)
    rank = select if by is None else _select(by)

    def best(pairs: list[Any]) -> list[Any]:
        # Stable: of equal ranks, the first stays first.
        return sorted(pairs, key=lambda pair: pair[0], reverse=True)[:k]

    def update(state: Any, value: Any) -> Any:
        selected, ranked = select(value), rank(value)
        if selected is None or ranked is None or (len(state) == k and not ranked > state[-1][0]):
            return state
        return best([*state, [ranked, selected]])

    return Aggregate(
        "top_k",
        [],
        update,
        lambda state: [pair[1] for pair in state],
        merge=lambda one, other: best(one + other),
        parameters=_parameters(k=k, of=selector, by=by),
    )


def approximate_distinct(selector: Selector = None, *, precision: int = 12) -> Aggregate:
    """About how many different values there were, None skipped: a HyperLogLog sketch.

    The standard error is 1.04 / sqrt(2 ** precision): 1.6 % at 12. The state takes up to 2 ** precision bytes, and
    less while there are few values. The hash is BLAKE2b, so that every process and every run counts alike. 1 and 1.0
    are one value, 1 and "1" are two; a list and a tuple of the same are one.

    Args:
        selector: a field, or a function of the value.
        precision: from 4 to 16.

    Raises:
        TopologyError: another precision.

    >>> carriers = approximate_distinct("carrier")
    >>> state = carriers.initial
    >>> for carrier in ("AA", "UA", "AA", "DL"):
    ...     state = carriers.update(state, {"carrier": carrier})
    >>> carriers.result(state)
    3
    """
    if not isinstance(precision, int) or not 4 <= precision <= 16:
        raise TopologyError(f"approximate_distinct takes a precision from 4 to 16, not {precision!r}")
    select, sketch = _select(selector), HyperLogLog(precision)

    def update(state: Any, value: Any) -> Any:
        selected = select(value)
        return state if selected is None else sketch.add(state, selected)

    told = _parameters(of=selector, precision=precision)
    return Aggregate("approximate_distinct", b"", update, sketch.estimate, True, sketch.merge, parameters=told)
