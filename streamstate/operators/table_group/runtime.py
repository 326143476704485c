"""Aggregations of a table's rows by group, as closures.

Rule of this module: what leaves a group is taken off before what enters it is added. Where both are of one group, that
is one step with one result; where not, one record per group goes out, the old group's first. A group's timestamp is the
greatest of the changes that made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Change, Forward
from streamstate.state.staging import StagedStore

if TYPE_CHECKING:
    from streamstate.operators.table_group.spec import TableAggregate, TableGroupBy, TableReduce


def group_by(name: str, spec: TableGroupBy, forward: Forward) -> Change:
    """Changes of rows as (group's key, (new, old))."""
    function, select, serialize_key = spec.function, spec.select, spec.key.serialize

    def grouped(key: Any, value: Any) -> tuple[Any, Any]:
        if value is None:
            return None, None
        try:
            group = function(key, value)
            selected = value if select is None else select(key, value)
        except Exception as error:
            raise OperatorFailed(name) from error
        return (None, None) if group is None or selected is None else (group, selected)

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        left, before = grouped(key, old)
        entered, after = grouped(key, new)
        if before is not None and after is not None:
            try:
                same = serialize_key(left) == serialize_key(entered)
            except Exception as error:
                given = (spec.key, left), (spec.key, entered)
                raise not_encoded(name, "encoding the group's key", *given) from error
            if same:
                forward(entered, (after, before), timestamp)
                return
        if before is not None:
            forward(left, (None, before), timestamp)
        if after is not None:
            forward(entered, (after, None), timestamp)

    return run


def reduce(spec: TableReduce) -> Callable[[Any, Any, Any, Any], Any]:
    """(group's key, aggregate or None, new, old) to the next aggregate."""
    adder, subtractor = spec.adder, spec.subtractor

    def fold(key: Any, state: Any, new: Any, old: Any) -> Any:
        if old is not None and state is not None:
            state = subtractor(state, old)
        if new is not None:
            state = new if state is None else adder(state, new)
        return state

    return fold


def aggregate(spec: TableAggregate) -> Callable[[Any, Any, Any, Any], Any]:
    """The same with an initializer and functions of (group's key, value, aggregate)."""
    initializer, adder, subtractor = spec.initializer, spec.adder, spec.subtractor

    def fold(key: Any, state: Any, new: Any, old: Any) -> Any:
        if old is not None and state is not None:
            state = subtractor(key, old, state)
        if new is not None:
            state = adder(key, new, initializer() if state is None else state)
        return state

    return fold


def folded(
    name: str,
    fold: Callable[[Any, Any, Any, Any], Any],
    store: StagedStore,
    forward: Change,
    *,
    needs_old: bool,
) -> Forward:
    """Keeps one aggregate per group."""
    serialize_key = store.spec.key.serialize
    get, put = store.get, store.put

    def run(key: Any, value: Any, timestamp: int) -> None:
        new, old = value
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the group's key", (store.spec.key, key)) from error
        entry = get(encoded)
        state = before = None
        if entry is not None:
            state, newest = entry
            if newest > timestamp:
                timestamp = newest
            if needs_old:
                # Read anew: the functions may change the one they are given in place.
                again = get(encoded)
                before = None if again is None else again[0]
        try:
            state = fold(key, state, new, old)
            put(encoded, state, timestamp)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, state, before, timestamp)

    return run
