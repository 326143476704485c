"""Looking up rows of tables, by key and as of a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Change
from streamstate.state.spec import StoreSpec
from streamstate.state.staging import StagedStore
from streamstate.state.versioned import Versions

# The row of a key as (value, timestamp in ms), or None.
Getter = Callable[[Any], "tuple[Any, int] | None"]
# The same as of a time (ms); None: the newest.
GetterAsOf = Callable[[Any, "int | None"], "tuple[Any, int] | None"]


def left_out(context: TaskContext) -> Change:
    """For operators that take only what is newest."""

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        context.dropped += 1

    return run


def rows_kept(name: str, store: StagedStore, forward: Change, *, needs_old: bool, drops: bool = False) -> Change:
    """Puts rows into a store and sends them on, with the ones they replace where those are asked for."""
    serialize_key = store.spec.key.serialize
    get, put = store.get, store.put

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (store.spec.key, key)) from error
        old = None
        if needs_old:
            entry = get(encoded)
            if entry is not None:
                old = entry[0]
        try:
            put(encoded, new, timestamp)
        except Exception as error:
            raise OperatorFailed(name, "encoding the row") from error
        if drops and needs_old and new is None and old is None:
            return
        forward(key, new, old, timestamp)

    return run


def rows_in(name: str, store: StagedStore, result: Callable[[Any], Any] | None = None) -> Getter:
    """Looks rows up in a store, for the operator ``name``; ``result`` makes of the stored value what is shown.

    Where rows are what is stored, the getter says so by its attribute ``store``.
    """
    serialize_key, get = store.spec.key.serialize, store.get

    def row(key: Any) -> tuple[Any, int] | None:
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (store.spec.key, key)) from error
        return get(encoded)

    if result is None:
        row.store = store  # type: ignore[attr-defined]
        return row
    show = result

    def shown(key: Any) -> tuple[Any, int] | None:
        entry = row(key)
        if entry is None:
            return None
        try:
            value = show(entry[0])
        except Exception as error:
            raise OperatorFailed(name) from error
        return None if value is None else (value, entry[1])

    return shown


def versions_in(name: str, versions: Versions, spec: StoreSpec) -> GetterAsOf:
    """Looks versions up, for the operator ``name``."""
    serialize_key, deserialize = spec.key.serialize, spec.value.deserialize

    def row(key: Any, as_of: int | None) -> tuple[Any, int] | None:
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (spec.key, key)) from error
        entry = versions.newest(encoded) if as_of is None else versions.at(encoded, as_of)
        if entry is None:
            return None
        value = deserialize(entry[0])
        return None if value is None else (value, entry[1])

    return row


def versions_through(getter: GetterAsOf, shown: Callable[[Any, Any], Any]) -> GetterAsOf:
    """Versions of a filter or map, made of its parent's."""

    def row(key: Any, as_of: int | None) -> tuple[Any, int] | None:
        entry = getter(key, as_of)
        if entry is None:
            return None
        value = shown(key, entry[0])
        return None if value is None else (value, entry[1])

    return row


def rows_through(getter: Getter, shown: Callable[[Any, Any], Any]) -> Getter:
    """Rows of a filter or map that keeps none, made of its parent's."""

    def row(key: Any) -> tuple[Any, int] | None:
        entry = getter(key)
        if entry is None:
            return None
        value = shown(key, entry[0])
        return None if value is None else (value, entry[1])

    return row
