"""Ready aggregates by name, made into one fold.

Rule of this module: pure. The state of several aggregates is a list of theirs, ordered by name, so that the order in
which they are written does not matter to a store that exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamstate.aggregates import Aggregate
from streamstate.errors import ProcessingError, TopologyError
from streamstate.functions import checked_function
from streamstate.serde import Serde
from streamstate.serde._tagged import decode, list_encoder

__all__ = ["NamedFold", "named_fold"]


@dataclass(frozen=True, slots=True)
class NamedFold:
    """Several aggregates as one.

    Attributes:
        initializer: makes the state before the first record.
        aggregator: (key, value, state) to the next; (key, (value, event time), state) when ``timed``.
        merger: (key, state, state) to that of both, for sessions; None when an aggregate has none.
        result: the state to a dict by name.
        kept: serde of the state.
        timed: an aggregate takes the event time too.
        unmergeable: names of the aggregates that have no merger.
    """

    initializer: Callable[[], Any]
    aggregator: Callable[[Any, Any, Any], Any]
    merger: Callable[[Any, Any, Any], Any] | None
    result: Callable[[Any], Any]
    kept: Serde[Any]
    timed: bool
    unmergeable: tuple[str, ...]


def named_fold(node: str, store: str, named: Mapping[str, Aggregate]) -> NamedFold:
    """Make ready aggregates into one fold.

    Args:
        node: what they come after, for errors.
        store: what errors call the store.
        named: by the names they have in the result.

    Raises:
        TopologyError: one of them is no aggregate.
    """
    for name, aggregate in named.items():
        if not isinstance(aggregate, Aggregate):
            raise TopologyError(
                f"aggregate after {node!r} got {name}={aggregate!r}: it takes ready aggregates by "
                f"name, as in {name}=aggregates.count()"
            )
        where = f"aggregate after {node!r}, {name}={aggregate.name}"
        checked_function(aggregate.update, where, "state, value", argument="update=")
        checked_function(aggregate.result, where, "state", argument="result=")
        if aggregate.merge is not None:
            checked_function(aggregate.merge, where, "state, state", argument="merge=")
    order = sorted(named)
    initials = [named[name].initial for name in order]
    updates = [named[name].update for name in order]
    merges = [named[name].merge for name in order]
    stamped = [named[name].timed for name in order]
    timed = any(stamped)
    shown = [(name, order.index(name), aggregate.result) for name, aggregate in named.items()]

    def checked(states: list[Any]) -> list[Any]:
        if len(states) != len(updates):
            raise ProcessingError(
                f"store {store!r} holds {len(states)} aggregates per key, but the topology has {len(updates)} "
                f"({', '.join(order)}): give the changed aggregation a new store name"
            )
        return states

    def aggregator(key: Any, value: Any, states: list[Any]) -> list[Any]:
        return [update(state, value) for update, state in zip(updates, checked(states), strict=True)]

    def timed_aggregator(key: Any, pair: tuple[Any, int], states: list[Any]) -> list[Any]:
        value = pair[0]
        return [
            update(state, pair if with_time else value)
            for update, with_time, state in zip(updates, stamped, checked(states), strict=True)
        ]

    def merger(key: Any, first: list[Any], second: list[Any]) -> list[Any]:
        return [
            merge(one, other)  # type: ignore[misc]
            for merge, one, other in zip(merges, checked(first), checked(second), strict=True)
        ]

    fold: Callable[[Any, Any, Any], Any] = timed_aggregator if timed else aggregator
    if len(order) == 1 and not timed:
        fold = _single(updates[0], checked)
    unmergeable = tuple(name for name in order if named[name].merge is None)
    return NamedFold(
        initializer=lambda: initials,
        aggregator=fold,
        merger=None if unmergeable else merger,
        result=_shown(shown),
        kept=Serde(
            "aggregates",
            list_encoder(lambda index: f"the state of the aggregate {order[index]!r} in store {store!r}"),
            decode,
            # Stores may keep states decoded that nobody else holds and that are never changed in place.
            immutable=all(aggregate.plain for aggregate in named.values()),
        ),
        timed=timed,
        unmergeable=unmergeable,
    )


def _single(
    update: Callable[[Any, Any], Any], checked: Callable[[list[Any]], list[Any]]
) -> Callable[[Any, Any, list[Any]], list[Any]]:
    """The fold of one aggregate."""

    def aggregator(key: Any, value: Any, states: list[Any]) -> list[Any]:
        if len(states) != 1:
            checked(states)
        return [update(states[0], value)]

    return aggregator


def _shown(shown: list[tuple[str, int, Callable[[Any], Any]]]) -> Callable[[Any], Any]:
    """States to the results by name."""
    if len(shown) == 1:
        name, _, show = shown[0]
        return lambda states: {name: show(states[0])}
    return lambda states: {name: show(states[index]) for name, index, show in shown}
