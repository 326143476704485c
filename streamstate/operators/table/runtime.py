"""Tables and their row-wise operators, as closures over changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Change, Forward
from streamstate.operators.base.rows import rows_kept
from streamstate.operators.topics.timestamps import unbounded
from streamstate.state.entry_format import VERSION, pack_header
from streamstate.state.spec import StoreSpec
from streamstate.state.staging import StagedStore
from streamstate.state.versioned import Versions
from streamstate.windows import checked_time

if TYPE_CHECKING:
    from streamstate.operators.topics.spec import Source


def every_update(forward: Forward) -> Change:
    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        forward(key, new, timestamp)

    # What it would call, for aggregations that can call it themselves.
    run.stream = forward  # type: ignore[attr-defined]
    return run


def source_without_rows(context: TaskContext, forward: Change) -> Forward:
    """A table of which nothing needs the rows."""

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None:
            context.dropped += 1
            return
        forward(key, value, None, timestamp)

    return run


def source(name: str, store: StagedStore, context: TaskContext, forward: Change, *, needs_old: bool) -> Forward:
    """Rows into the store, then on."""
    serialize_key = store.spec.key.serialize
    get, put = store.get, store.put

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None:
            context.dropped += 1
            return
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
            put(encoded, value, timestamp)
        except Exception as error:
            raise OperatorFailed(name, "encoding the row") from error
        forward(key, value, old, timestamp)

    return run


def versioned_source(
    name: str,
    versions: Versions,
    spec: StoreSpec,
    context: TaskContext,
    forward: Change,
    stale: Change,
    *,
    needs_old: bool,
) -> Forward:
    """Rows into a versioned store, then on: what is not its row's newest version goes to ``stale``."""
    serialize_key, serialize, deserialize = spec.key.serialize, spec.value.serialize, spec.value.deserialize
    newest, put = versions.newest, versions.put

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
            row = None if value is None else serialize(value)
        except Exception as error:
            given = (spec.key, key), (spec.value, value)
            raise not_encoded(name, "encoding the row", *given) from error
        before = newest(encoded) if needs_old else None
        latest = put(encoded, row, timestamp)
        if latest is None:
            context.dropped += 1
        elif latest:
            forward(key, value, None if before is None else deserialize(before[0]), timestamp)
        else:
            stale(key, value, None, timestamp)

    return run


def rebuilt(source: Source) -> Callable[[bytes, bytes | None, int], tuple[bytes, bytes | None] | None]:
    """Makes, of a record of the source, the entry that processing it has stored; None where it has stored none.

    Keys are encoded anew, because equal keys may differ in their bytes; values are taken as they are, because they
    decode to the same. They are decoded all the same, because one that decodes to None is no row.
    """
    decode_key, encode_key, decode_value = source.key.deserialize, source.key.serialize, source.value.deserialize
    extract = unbounded(source.timestamp, rows=True)

    def entry(key: bytes, value: bytes | None, timestamp: int) -> tuple[bytes, bytes | None] | None:
        decoded = decode_key(key)
        if decoded is None:
            return None
        row = None if value is None else decode_value(value)
        if row is None:
            return encode_key(decoded), None
        if extract is not None:
            given: Any = extract(decoded, row)
            checked_time(given, "a record", 0)
            timestamp = given
        return encode_key(decoded), pack_header(VERSION, timestamp) + value  # type: ignore[operator]

    return entry


def only_changes(name: str, serialize: Callable[[Any], bytes], forward: Change) -> Change:
    """Leaves out rows whose serialized value is that of the row that was there."""

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        if new is None or old is None:
            if new is old:
                return
        else:
            try:
                same = serialize(new) == serialize(old)
            except Exception as error:
                raise OperatorFailed(name, "encoding the row") from error
            if same:
                return
        forward(key, new, old, timestamp)

    return run


def only_changed(name: str, serialize: Callable[[Any], bytes] | None, forward: Forward) -> Change:
    """Sends on, as records, what differs from the row that was there: by its bytes, or its value without ``serialize``.
    What comes here is asked for old rows, which no function has changed in place."""

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        if new is old:
            return
        if new is not None and old is not None:
            try:
                same = new == old if serialize is None else serialize(new) == serialize(old)
            except Exception as error:
                raise OperatorFailed(name, "comparing the row with the one before") from error
            if same:
                return
        forward(key, new, timestamp)

    return run


def row_predicate(name: str, predicate: Callable[[Any, Any], object], negate: bool) -> Callable[[Any, Any], Any]:
    """(key, value) to the value, or to None where the row does not pass."""

    def kept(key: Any, value: Any) -> Any:
        if value is None:
            return None
        try:
            passes = bool(predicate(key, value)) is not negate
        except Exception as error:
            raise OperatorFailed(name) from error
        return value if passes else None

    return kept


def row_function(name: str, function: Callable[..., Any], with_key: bool) -> Callable[[Any, Any], Any]:
    """(key, value) to what the user's function makes of the value, or of both."""
    if with_key:

        def mapped_with_key(key: Any, value: Any) -> Any:
            if value is None:
                return None
            try:
                return function(key, value)
            except Exception as error:
                raise OperatorFailed(name) from error

        return mapped_with_key

    def mapped(key: Any, value: Any) -> Any:
        if value is None:
            return None
        try:
            return function(value)
        except Exception as error:
            raise OperatorFailed(name) from error

    return mapped


def row_wise(shown: Callable[[Any, Any], Any], forward: Change, *, needs_old: bool, drops: bool) -> Change:
    """A filter or map that keeps no rows.

    Args:
        shown: (key, value) to what the table shows of it.
        forward: what follows.
        needs_old: whether old rows are asked for.
        drops: whether a change from no row to no row is left out when they are.
    """
    if not needs_old:

        def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
            forward(key, shown(key, new), None, timestamp)

        return run

    def run_with_old(key: Any, new: Any, old: Any, timestamp: int) -> None:
        after, before = shown(key, new), shown(key, old)
        if drops and after is None and before is None:
            return
        forward(key, after, before, timestamp)

    return run_with_old


def row_wise_kept(
    name: str,
    store: StagedStore,
    shown: Callable[[Any, Any], Any],
    forward: Change,
    *,
    needs_old: bool,
    drops: bool,
) -> Change:
    """The same with the rows in a store of its own."""
    kept = rows_kept(name, store, forward, needs_old=needs_old, drops=drops)

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        kept(key, shown(key, new), None, timestamp)

    return run
