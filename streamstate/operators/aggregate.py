"""Keyed aggregations and what turns their tables into streams.

Semantics are Kafka Streams': a record with a null key or a null value is left out and counted, a result's
timestamp is the greatest of those that made it, and each update is a change ``(key, new, old, timestamp)``. Store
reads stand outside the ``try`` blocks: a store that cannot be read is not the record's failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from streamstate.operators.context import OperatorFailed, TaskContext
from streamstate.operators.stateless import Forward, with_encoded_key
from streamstate.state import MISSING, StagedStore, UndoLog
from streamstate.state.staging import ENTRY_BYTES, DecodedStore
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
    if isinstance(store, DecodedStore):
        direct = getattr(forward, "stream", None)
        if direct is not None:
            return _count_to_stream(name, store, context, direct)
        pending = getattr(forward, "newest", None)
        if pending is not None:
            return _count_per_commit(name, store, context, pending)
        return _count_decoded(name, store, context, forward)
    serialize_key = store.spec.key.serialize
    get, put = store.get, store.put

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise OperatorFailed(name, "encoding the key") from error
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


def _count_decoded(name: str, store: DecodedStore, context: TaskContext, forward: Change) -> Forward:
    """The same with ``get`` and ``put`` written out: the calls are a third of this operator's cost."""
    serialize_key = store.spec.key.serialize
    staged, load = store.staged, store.load
    lookup = staged.get

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise OperatorFailed(name, "encoding the key") from error
        entry = lookup(encoded, MISSING)
        if entry is MISSING:
            entry = load(encoded)
            store.staged_bytes += ENTRY_BYTES + len(encoded)
        if entry is None:
            staged[encoded] = (1, timestamp)
            forward(key, 1, None, timestamp)
            return
        old, newest = entry
        if timestamp > newest:
            newest = timestamp
        new = old + 1
        staged[encoded] = (new, newest)
        forward(key, new, old, newest)

    return run


def _count_to_stream(name: str, store: DecodedStore, context: TaskContext, forward: Forward) -> Forward:
    """The same when all that follows is a stream of every update: no change to make and take apart."""
    serialize_key = store.spec.key.serialize
    staged, load = store.staged, store.load
    lookup = staged.get
    keyed = with_encoded_key(forward, serialize_key)
    as_encoded = keyed is not None
    send = forward if keyed is None else keyed

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise OperatorFailed(name, "encoding the key") from error
        entry = lookup(encoded, MISSING)
        if entry is MISSING:
            entry = load(encoded)
            store.staged_bytes += ENTRY_BYTES + len(encoded)
        if entry is None:
            new = 1
        else:
            new = entry[0] + 1
            if entry[1] > timestamp:
                timestamp = entry[1]
        staged[encoded] = (new, timestamp)
        send(encoded if as_encoded else key, new, timestamp)

    return run


def _count_per_commit(name: str, store: DecodedStore, context: TaskContext, newest: NewestPerCommit) -> Forward:
    """The same when all that follows takes the newest count of a key with each commit: it is in the store."""
    serialize_key = store.spec.key.serialize
    staged, load = store.staged, store.load
    lookup = staged.get
    changed = newest.read_from(staged)
    as_encoded = newest.as_encoded

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise OperatorFailed(name, "encoding the key") from error
        entry = lookup(encoded, MISSING)
        if entry is MISSING:
            entry = load(encoded)
            store.staged_bytes += ENTRY_BYTES + len(encoded)
        if entry is None:
            staged[encoded] = (1, timestamp)
        else:
            newest = entry[1]
            staged[encoded] = (entry[0] + 1, timestamp if timestamp > newest else newest)
        changed[encoded] = encoded if as_encoded else key

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
            raise OperatorFailed(name, "encoding the key") from error
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
            raise OperatorFailed(name, "encoding the key") from error
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

    def take(self) -> list[tuple[bytes, tuple[Any, ...]]]:
        """What is pending, as (encoded key, arguments of ``forward``); it no longer is."""
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
        # What changed of the table, when its newest values are read from its store.
        self._changed: dict[bytes, Any] = {}
        self._staged: dict[bytes, tuple[Any, int]] = {}

    def read_from(self, staged: dict[bytes, Any]) -> dict[bytes, Any]:
        """Take the newest values from the table's staged entries, in place of changes.

        Args:
            staged: (value, timestamp) by encoded key; what has changed is there until the commit.

        Returns:
            For the table to put in what ``forward`` takes as the key, by encoded key.
        """
        self._staged = staged
        return self._changed

    def change(self, key: Any, new: Any, old: Any, timestamp: int) -> None:
        """Take one update."""
        encoded = self._serialize_key(key)
        if self._undo is not None:
            self._undo.append((self._pending, encoded, self._pending.get(encoded, MISSING)))
        self._pending[encoded] = (encoded if self.as_encoded else key, new, timestamp)

    def take(self) -> list[tuple[bytes, tuple[Any, ...]]]:
        """What is pending; it no longer is."""
        staged = self._staged
        pending: list[tuple[bytes, tuple[Any, ...]]] = list(self._pending.items())
        self._pending.clear()
        pending += [(encoded, (key, *staged[encoded])) for encoded, key in self._changed.items()]
        self._changed.clear()
        return pending

    def discard(self) -> None:
        """Drop what is pending."""
        self._pending.clear()
        self._changed.clear()

    def __len__(self) -> int:
        return len(self._pending) or len(self._changed)


def newest_only(emitter: NewestPerCommit) -> Change:
    """What takes changes for ``emitter``, and tells aggregations that it can read their stores instead."""

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        emitter.change(key, new, old, timestamp)

    run.newest = emitter  # type: ignore[attr-defined]
    return run
