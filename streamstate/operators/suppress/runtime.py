"""Holding changes of a table back.

Semantics are Kafka Streams': of each key the newest change is held, in the place of the first one in the order of time;
what is due goes in that order, and in the order of the keys' bytes within the same time. Stream time is that of the
changes seen here. What is held is in a store, and so survives a restart; the order is kept in memory.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from streamstate.errors import ProcessingError
from streamstate.operators.base.context import RecordWithHeaders, TaskContext
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Change, no_change
from streamstate.state.staging import StagedStore
from streamstate.state.undo import MISSING, UndoLog
from streamstate.state.window_index import WindowIndex
from streamstate.windows.keys import TIME_KEY, pack_time, unpack_time

if TYPE_CHECKING:
    from streamstate.operators.suppress.spec import Suppress

# Rough size of what is held of a record besides its key and value.
HELD_BYTES = 24
_SIZE = b"size"


class _LetGo(dict[bytes, Any]):
    """In an undo log: puts what was let go back into the order."""

    def __init__(self, order: list[tuple[int, bytes]]) -> None:
        super().__init__()
        self._order = order

    def __setitem__(self, encoded: bytes, time: int) -> None:
        heappush(self._order, (time, encoded))


class Suppressor:
    """One ``suppress`` in one task.

    Args:
        name: of the node.
        spec: of the node.
        store: holds (newest value, the value before the first one held, headers) by time and key.
        context: the task's.
        undo: where to log what a failed record takes back.

    Attributes:
        forward: takes what is let go.
    """

    def __init__(
        self, name: str, spec: Suppress, store: StagedStore, context: TaskContext, undo: UndoLog | None
    ) -> None:
        assert store.segments is not None, "a windowed store without segments"
        self.forward: Change = no_change
        self._name = name
        self._spec = spec
        self._store = store
        self._segments: WindowIndex = store.segments
        self._context = context
        self._undo = undo
        # By key: since when it is held, and its size. The order has what was there, too: the index decides.
        self._index: dict[bytes, tuple[int, int]] = {}
        self._order: list[tuple[int, bytes]] = []
        self._let_go = _LetGo(self._order)
        self._bytes: dict[bytes, int] = {_SIZE: 0}

    def init(self) -> None:
        """State is restored: find out what is held."""
        for at, (held, _) in self._store.scan(None, None):
            self._index[at[8:]] = unpack_time(at), self._size(at, held)
        self._bytes[_SIZE] = sum(size for _, size in self._index.values())
        self._order[:] = [(time, encoded) for encoded, (time, _) in self._index.items()]
        heapify(self._order)

    def close(self) -> None:
        """Nothing to release."""

    def _size(self, at: bytes, held: Any) -> int:
        if self._spec.max_bytes is None:
            return 0
        return HELD_BYTES + len(at) + len(self._store.spec.value.serialize(held))

    def row(self, key: Any) -> tuple[Any, int] | None:
        """The row of a key that is held, as it was before; raises LookupError when it is not held."""
        encoded = self._encoded(key)
        if encoded not in self._index:
            raise LookupError
        entry = self._store.get(pack_time(self._index[encoded][0]) + encoded)
        assert entry is not None, "held, but not in the store"
        before = entry[0][1]
        return None if before is None else (before, -1)

    def _encoded(self, key: Any) -> bytes:
        try:
            return self._spec.key.serialize(key)
        except Exception as error:
            raise not_encoded(self._name, "encoding the key", (self._spec.key, key)) from error

    def change(self, key: Any, new: Any, old: Any, timestamp: int) -> None:
        """Take one change, and let go what is due."""
        now = self._segments.clock[TIME_KEY]
        if timestamp > now:
            now = timestamp
            self._segments.advance(timestamp)
        self._hold(key, new, old, timestamp)
        wait_ms = self._spec.wait_ms
        if wait_ms is not None:
            due = now - wait_ms
            while (first := self._first()) is not None and first[0] <= due:
                self._release(first)
        if self._over():
            self._make_room()

    def _hold(self, key: Any, new: Any, old: Any, timestamp: int) -> None:
        encoded = self._encoded(key)
        found = self._index.get(encoded)
        record = self._context.record
        headers = None if record is None else record.headers()
        if found is None:
            time, before, size = (key.end if self._spec.by_window else timestamp), old, 0
            at = pack_time(time) + encoded
            self._segments.created(at)
            heappush(self._order, (time, encoded))
        else:
            time, size = found
            at = pack_time(time) + encoded
            entry = self._store.get(at)
            assert entry is not None, "held, but not in the store"
            before = entry[0][1]
        held = (new, before, headers)
        try:
            self._store.put(at, held, timestamp)
            larger = self._size(at, held)
        except Exception as error:
            raise OperatorFailed(self._name, "encoding the value") from error
        self._set(encoded, (time, larger))
        self._grow(larger - size)

    def _set(self, encoded: bytes, held: tuple[int, int]) -> None:
        if self._undo is not None:
            self._undo.append((self._index, encoded, self._index.get(encoded, MISSING)))
        self._index[encoded] = held

    def _grow(self, by: int) -> None:
        if by:
            if self._undo is not None:
                self._undo.append((self._bytes, _SIZE, self._bytes[_SIZE]))
            self._bytes[_SIZE] += by

    def _first(self) -> tuple[int, bytes] | None:
        order = self._order
        while order:
            time, encoded = order[0]
            if self._index.get(encoded, (None,))[0] == time:
                return order[0]
            heappop(order)
        return None

    def _release(self, first: tuple[int, bytes]) -> None:
        time, encoded = heappop(self._order)
        assert (time, encoded) == first, "not the first"
        if self._undo is not None:
            self._undo.append((self._let_go, encoded, time))
            self._undo.append((self._index, encoded, self._index[encoded]))
        size = self._index.pop(encoded)[1]
        self._grow(-size)
        at = pack_time(time) + encoded
        entry = self._store.get(at)
        assert entry is not None, "held, but not in the store"
        (new, before, headers), timestamp = entry
        self._segments.delete(at)
        if new is None and self._spec.by_window:
            return
        try:
            key = self._spec.key.deserialize(encoded)
        except Exception as error:
            raise OperatorFailed(self._name, "decoding the key") from error
        context = self._context
        record = context.record
        context.record = None if headers is None else RecordWithHeaders(record, headers)
        try:
            self.forward(key, new, before, timestamp)
        finally:
            context.record = record

    def _over(self) -> bool:
        spec = self._spec
        if spec.max_records is not None and len(self._index) > spec.max_records:
            return True
        return spec.max_bytes is not None and self._bytes[_SIZE] > spec.max_bytes

    def _make_room(self) -> None:
        if self._spec.when_full == "stop":
            raise ProcessingError(
                f"task {self._context.task_id}: suppress {self._name!r} holds {len(self._index)} records "
                f"(max_records={self._spec.max_records}) of about {self._bytes[_SIZE]} bytes "
                f"(max_bytes={self._spec.max_bytes}) and may not send them early (when_full='stop'). Nothing of this "
                "record was kept. Raise the limit, or shorten what is held back"
            )
        while self._over() and (first := self._first()) is not None:
            self._release(first)
