"""Aggregations per key as closures.

The semantics are those of Kafka Streams: a record with a null key or a null value is left out and counted, a result's
timestamp is the greatest of those that made it, and each update is a change ``(key, new, old, timestamp)``. Store
reads stand outside the ``try`` blocks: a store that cannot be read is not the record's failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamstate.operators.base.commit_results import NewestPerCommit
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Change, Forward, with_encoded_key
from streamstate.state.mutable_entries import MutableEntryStore
from streamstate.state.staging import ENTRY_BYTES, StagedStore

if TYPE_CHECKING:
    from streamstate.operators.aggregate.spec import Aggregate, Reduce


def count(name: str, store: StagedStore, context: TaskContext, forward: Change) -> Forward:
    if isinstance(store, MutableEntryStore):
        newest = getattr(forward, "newest", None)
        if newest is not None:
            return _count_per_commit(name, store, context, newest)
        return _count_in_place(name, store, context, forward)
    serialize_key = store.spec.key.serialize
    get, put = store.get, store.put

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (store.spec.key, key)) from error
        entry = get(encoded)
        if entry is None:
            put(encoded, 1, timestamp)
            forward(key, 1, None, timestamp)
            return
        old, before = entry
        newest = timestamp if timestamp > before else before
        put(encoded, old + 1, newest)
        forward(key, old + 1, old, newest)

    return run


def _count_in_place(name: str, store: MutableEntryStore, context: TaskContext, forward: Change) -> Forward:
    """The same with ``get`` and ``put`` written out: the calls are a third of this operator's cost."""
    serialize_key = store.spec.key.serialize
    staged, load, lookup = store.staged, store.load, store.young.get
    # When all that follows is a stream of every update, there is no change to make and take apart.
    stream = getattr(forward, "stream", None)
    keyed = None if stream is None else with_encoded_key(stream, serialize_key)
    direct = stream is not None
    as_encoded = keyed is not None
    send: Callable[..., None] = keyed or stream or forward

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (store.spec.key, key)) from error
        slot = lookup(encoded)
        if slot is None:
            slot = load(encoded)
        if not slot.dirty:
            slot.dirty = True
            staged[encoded] = slot
            store.staged_bytes += ENTRY_BYTES + len(encoded)
        old = slot.value
        new = slot.value = 1 if old is None else old + 1
        if timestamp > slot.timestamp or old is None:
            slot.timestamp = timestamp
        else:
            timestamp = slot.timestamp
        if direct:
            send(encoded if as_encoded else key, new, timestamp)
        else:
            send(key, new, old, timestamp)

    return run


def _count_per_commit(name: str, store: MutableEntryStore, context: TaskContext, newest: NewestPerCommit) -> Forward:
    """The same when all that follows takes the newest count of a key with each commit: it is in the store."""
    serialize_key = store.spec.key.serialize
    staged, load, lookup = store.staged, store.load, store.young.get
    changed, as_encoded = newest.slots, newest.as_encoded

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (store.spec.key, key)) from error
        slot = lookup(encoded)
        if slot is None:
            slot = load(encoded)
        if not slot.dirty:
            slot.dirty = True
            staged[encoded] = slot
            changed[encoded] = (encoded if as_encoded else key, slot)
            store.staged_bytes += ENTRY_BYTES + len(encoded)
        old = slot.value
        slot.value = 1 if old is None else old + 1
        if timestamp > slot.timestamp or old is None:
            slot.timestamp = timestamp

    return run


def reduce(
    name: str,
    spec: Reduce,
    store: StagedStore,
    context: TaskContext,
    forward: Change,
    *,
    needs_old: bool = False,
) -> Forward:
    """``needs_old``: see ``aggregate``."""
    serialize_key, function = store.spec.key.serialize, spec.function
    get, put = store.get, store.put

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (store.spec.key, key)) from error
        entry = get(encoded)
        again = get(encoded) if needs_old else None
        try:
            if entry is None:
                old, new, newest = None, value, timestamp
            else:
                old, before = entry
                new = function(old, value)
                if again is not None:
                    old = again[0]
                newest = timestamp if timestamp > before else before
            put(encoded, new, newest)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, new, old, newest)

    return run


def aggregate(
    name: str,
    spec: Aggregate,
    store: StagedStore,
    context: TaskContext,
    forward: Change,
    *,
    needs_old: bool = False,
) -> Forward:
    """``needs_old``: something compares old and new, so that the old aggregate must not be the one that the user's
    function may change in place."""
    serialize_key = store.spec.key.serialize
    initializer, aggregator, result = spec.initializer, spec.aggregator, spec.result
    get, put = store.get, store.put

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (store.spec.key, key)) from error
        entry = get(encoded)
        again = get(encoded) if needs_old else None
        try:
            if entry is None:
                old, newest, state = None, timestamp, initializer()
            else:
                state, before = entry
                newest = timestamp if timestamp > before else before
                old = again[0] if again is not None else state
                if result is not None:
                    old = result(old)
            state = aggregator(key, value, state)
            put(encoded, state, newest)
            new = state if result is None or state is None else result(state)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, new, old, newest)

    return run
