"""Keyed aggregations and what turns their tables into streams.

Semantics are Kafka Streams': a record with a null key or a null value is left out and counted, a result's
timestamp is the greatest of those that made it, and each update is a change ``(key, new, old, timestamp)``. Store
reads stand outside the ``try`` blocks: a store that cannot be read is not the record's failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from streamstate.operators.context import OperatorFailed, TaskContext, not_encoded
from streamstate.operators.stateless import Forward, with_encoded_key
from streamstate.state import MISSING, Slot, SlotStore, StagedStore, UndoLog
from streamstate.state.staging import ENTRY_BYTES
from streamstate.topology import specs

Change = Callable[[Any, Any, Any, int], None]


def no_change(key: Any, new: Any, old: Any, timestamp: int) -> None:
    """The end of a table that nobody reads."""


def fan_out_changes(forwards: Sequence[Change]) -> Change:
    """One closure that calls all of ``forwards`` in order."""
    if not forwards:
        return no_change
    if len(forwards) == 1:
        return forwards[0]
    every = tuple(forwards)

    def all_of_them(key: Any, new: Any, old: Any, timestamp: int) -> None:
        for forward in every:
            forward(key, new, old, timestamp)

    return all_of_them


def count(name: str, store: StagedStore, context: TaskContext, forward: Change) -> Forward:
    if isinstance(store, SlotStore):
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


def _count_in_place(name: str, store: SlotStore, context: TaskContext, forward: Change) -> Forward:
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


def _count_per_commit(name: str, store: SlotStore, context: TaskContext, newest: NewestPerCommit) -> Forward:
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
    spec: specs.Reduce,
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
    spec: specs.Aggregate,
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


def every_update(forward: Forward) -> Change:
    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        forward(key, new, timestamp)

    # What it would call, for aggregations that can call it themselves.
    run.stream = forward  # type: ignore[attr-defined]
    return run


def stamped(forward: Forward) -> Forward:
    """For folds that take the event time: the value together with it."""

    def run(key: Any, value: Any, timestamp: int) -> None:
        forward(key, None if value is None else (value, timestamp), timestamp)

    return run


class CommitEmitter(Protocol):
    """What waits for the commit.

    Attributes:
        forward: takes what was pending; its last argument is the timestamp.
        on_error: policy for a result that fails then.
    """

    forward: Callable[..., None]
    on_error: specs.ErrorPolicy

    def take(self) -> Iterable[tuple[bytes, tuple[Any, ...]]]:
        """What is pending, as (encoded key, arguments of ``forward``); it no longer is. To be used up before another
        record comes."""
        ...

    def discard(self) -> None:
        """Drop what is pending."""
        ...

    def __len__(self) -> int: ...


class ChangesPerCommit:
    """A table that changes at commits only: from what was so at the last one to what is newest."""

    def __init__(
        self,
        serialize_key: Callable[[Any], bytes],
        forward: Change,
        undo: UndoLog | None,
        on_error: specs.ErrorPolicy = specs.FAIL,
    ) -> None:
        self.forward: Callable[..., None] = forward
        self.on_error = on_error
        self._serialize_key = serialize_key
        self._undo = undo
        self._pending: dict[bytes, tuple[Any, Any, Any, int]] = {}

    def change(self, key: Any, new: Any, old: Any, timestamp: int) -> None:
        """Take one change."""
        encoded = self._serialize_key(key)
        before = self._pending.get(encoded)
        if self._undo is not None:
            self._undo.append((self._pending, encoded, MISSING if before is None else before))
        self._pending[encoded] = (key, new, old if before is None else before[2], timestamp)

    def take(self) -> list[tuple[bytes, tuple[Any, ...]]]:
        """What is pending, unless it came and went; it no longer is."""
        pending = [(key, change) for key, change in self._pending.items() if change[1:3] != (None, None)]
        self._pending.clear()
        return pending

    def discard(self) -> None:
        """Drop what is pending."""
        self._pending.clear()

    def __len__(self) -> int:
        return len(self._pending)


class NewestPerCommit:
    """``emit="commit"``: keeps the newest value per key and sends it on when the transaction is about to close.

    Attributes:
        as_encoded: ``forward`` takes the encoded key in place of the key.
        slots: by encoded key, what ``forward`` takes as the key and the slot of its newest value: for aggregations that
            write slots, in place of changes. A slot is put here when it becomes dirty.
    """

    def __init__(
        self,
        serialize_key: Callable[[Any], bytes],
        forward: Forward,
        undo: UndoLog | None,
        on_error: specs.ErrorPolicy = specs.FAIL,
    ) -> None:
        keyed = with_encoded_key(forward, serialize_key)
        self.forward: Callable[..., None] = forward if keyed is None else keyed
        self.as_encoded = keyed is not None
        self.on_error = on_error
        self._serialize_key = serialize_key
        self._undo = undo
        self._pending: dict[bytes, tuple[Any, Any, int]] = {}
        self.slots: dict[bytes, tuple[Any, Slot]] = {}

    def change(self, key: Any, new: Any, old: Any, timestamp: int) -> None:
        """Take one update."""
        encoded = self._serialize_key(key)
        if self._undo is not None:
            self._undo.append((self._pending, encoded, self._pending.get(encoded, MISSING)))
        self._pending[encoded] = (encoded if self.as_encoded else key, new, timestamp)

    def take(self) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
        """What is pending; it no longer is. One by one, so that each is sent on while the processor has it at hand."""
        pending, slots = list(self._pending.items()), list(self.slots.items())
        self._pending.clear()
        self.slots.clear()
        yield from pending
        for encoded, (key, slot) in slots:
            # What changes it after this must say so again.
            slot.dirty = False
            yield encoded, (key, slot.value, slot.timestamp)

    def discard(self) -> None:
        """Drop what is pending."""
        self._pending.clear()
        self.slots.clear()

    def __len__(self) -> int:
        return len(self._pending) or len(self.slots)


def newest_only(emitter: NewestPerCommit) -> Change:
    """What takes changes for ``emitter``, and tells aggregations that it can read their stores instead."""

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        emitter.change(key, new, old, timestamp)

    run.newest = emitter  # type: ignore[attr-defined]
    return run
