"""Ready aggregates by name, made into one fold.

Rule of this module: pure. The state of several aggregates is a list of theirs, ordered by name, so that the order in
which they are written does not matter to a store that exists.

Aggregates may be added to a store that exists, and removed from it. The store remembers each set of aggregates that it
was written with, oldest first. An entry begins with the number of its set, so that it can be read under a later one: an
aggregate that was in every set since keeps its state, all others start anew. Entries of the first set have no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from streamstate.aggregates import Aggregate
from streamstate.errors import ProcessingError, TopologyError
from streamstate.functions import checked_function
from streamstate.serde import Serde
from streamstate.serde._tagged import decode, list_encoder
from streamstate.state.spec import Aggregates, StoreSpec

__all__ = ["NamedFold", "named_fold", "of_fold"]


# What an encoded list begins with. Numbers of sets are less.
LIST: Final = ord("[")


def _states_of(named: Mapping[str, Aggregate], plain: Serde[Any], sets: tuple[Aggregates, ...]) -> Serde[Any]:
    """Serde of the states in a store that was written with ``sets``, of which the last is that of ``named``."""
    newest = len(sets) - 1
    if newest == 0:
        return plain
    assert newest < LIST, "more sets than there are numbers"
    encode, decode = plain.serialize, plain.deserialize
    number = bytes((newest,))
    # By number of the set: for each aggregate of now its place in there, or None and its initial state.
    places: list[list[tuple[int | None, Any]]] = []
    for first in range(newest):
        known = {name for name, kind in sets[first] if all(name in dict(later) for later in sets[first:])}
        order = [name for name, _ in sets[first]]
        places.append([(order.index(name) if name in known else None, named[name].initial) for name, _ in sets[newest]])

    def serialize(states: list[Any]) -> bytes:
        return number + encode(states)

    def deserialize(data: bytes) -> Any:
        first = data[0]
        if first == newest:
            return decode(data[1:])
        states = decode(data) if first == LIST else decode(data[1:])
        found = places[0 if first == LIST else first]
        return [initial if place is None else states[place] for place, initial in found]

    return Serde(plain.name, serialize, deserialize, immutable=plain.immutable)


@dataclass(frozen=True, slots=True)
class NamedFold:
    """Several aggregates as one.

    Attributes:
        initializer: makes the state before the first record.
        aggregator: (key, value, state) to the next; (key, (value, event time), state) when ``timed``.
        merger: (key, state, state) to that of both, for sessions; None when an aggregate has none.
        result: the state to a dict by name.
        kept: serde of the state.
        aggregates: what a store remembers of them.
        states: serde of the state in a store that was written with these sets of aggregates, the last being this one.
        timed: an aggregate takes the event time too.
        unmergeable: names of the aggregates that have no merger.
    """

    initializer: Callable[[], Any]
    aggregator: Callable[[Any, Any, Any], Any]
    merger: Callable[[Any, Any, Any], Any] | None
    result: Callable[[Any], Any]
    kept: Serde[Any]
    aggregates: Aggregates
    states: Callable[[tuple[Aggregates, ...]], Serde[Any]]
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
    kept: Serde[Any] = Serde(
        "aggregates",
        list_encoder(lambda index: f"the state of the aggregate {order[index]!r} in store {store!r}"),
        decode,
        # Stores may keep states decoded that nobody else holds and that are never changed in place.
        immutable=all(aggregate.plain for aggregate in named.values()),
    )
    unmergeable = tuple(name for name in order if named[name].merge is None)
    return NamedFold(
        initializer=lambda: initials,
        aggregator=fold,
        merger=None if unmergeable else merger,
        result=_shown(shown),
        kept=kept,
        aggregates=tuple((name, named[name].kind) for name in order),
        states=lambda sets: _states_of(named, kept, sets),
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


def of_fold(store: StoreSpec, fold: NamedFold | None) -> StoreSpec:
    """The same store; with ``fold``, one of ready aggregates."""
    if fold is None:
        return store
    content = store.content.replace("aggregate", "ready aggregates", 1)
    return replace(store, content=content, aggregates=fold.aggregates, states=fold.states)
