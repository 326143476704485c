"""Key-value stores with a time to live: entries that end when stream time is so far past their last write.

Rule of this module: an entry that has expired is never shown, whether it was swept away yet or not. When it expires is
decided by the event time that every entry carries, so it is the same after a restore.

Two layouts, one behind the other in one store:

- ``WRITTEN``, the time of the last write, rounded down to a stretch, the key: the order in which entries expire.
- ``ENTRY``, the key: the entry.

Both are staged, committed, restored and rolled back together, as any other entries. An entry moves in the first when it
is written in another stretch only, a sixteenth of its time to live, so that a key that changes often costs little.
Stretches that have wholly expired are swept before a commit is sealed, oldest first. What is swept is looked up, so
that a time to live may be changed: entries are then where the one before had put them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from streamstate.state.backend import Backend
from streamstate.state.entry_format import VERSION, pack_header, unpack_header
from streamstate.state.spec import StoreSpec
from streamstate.state.staging import ENTRY_BYTES, EncodedStore, StagedStore
from streamstate.state.undo import MISSING, Entry, UndoLog
from streamstate.windows.keys import pack_time, unpack_time

WRITTEN, ENTRY, BEHIND = b"\x00", b"\x01", b"\x02"
KEY_AT = len(WRITTEN) + 8
STRETCHES = 16
# A commit sweeps this many entries, or twice as many as it writes, so that none takes long and no backlog grows.
SWEPT_PER_COMMIT: Final = 10_000
_NOTHING: Final = pack_header(VERSION, 0)


class ExpiringStore(EncodedStore):
    """See the module.

    Args:
        stream_time: gives the task's stream time in ms.
    """

    __slots__ = ("_stream_time", "_stretch", "_swept", "_ttl")

    def __init__(
        self,
        spec: StoreSpec,
        backend: Backend,
        cache_bytes: int,
        undo: UndoLog | None,
        stream_time: Callable[[], int],
    ) -> None:
        super().__init__(spec, backend, cache_bytes, undo)
        assert spec.ttl_ms is not None, "nothing expires"
        self._ttl = spec.ttl_ms
        self._stretch = max(1, spec.ttl_ms // STRETCHES)
        self._stream_time = stream_time
        # Before this time (ms) there is nothing to sweep; None: not known.
        self._swept: int | None = None

    # -- entries -------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Entry | None:
        stored = self._newest(ENTRY + key)
        if stored is None or unpack_header(stored)[1] + self._ttl <= self._stream_time():
            return None
        return self._to_entry(stored)

    def value(self, key: bytes) -> Any:
        return StagedStore.value(self, key)

    def put(self, key: bytes, value: Any, timestamp: int) -> None:
        at = ENTRY + key
        # Encoded first: if that fails, nothing was written.
        try:
            stored = None if value is None else pack_header(VERSION, timestamp) + self._serialize(value)
        except Exception as error:
            raise self.spec.value.refusal(value, error) from error
        if timestamp + self._ttl <= self._stream_time():
            stored = None
        before = self._newest(at)
        old = None if before is None else self._stretch_of(unpack_header(before)[1])
        new = None if stored is None else self._stretch_of(timestamp)
        if old != new:
            if old is not None:
                self._stage(_written(old, key), None)
            if new is not None:
                self._stage(_written(new, key), _NOTHING)
                if self._swept is not None and new < self._swept:
                    # Of a record that was held back: it has the stream time of when it came.
                    self._swept = new
        if before is not None or stored is not None:
            self._stage(at, stored)

    def scan(self, start: bytes | None, end: bytes | None, reverse: bool = False) -> Iterator[tuple[bytes, Entry]]:
        low = ENTRY if start is None else ENTRY + start
        dead = self._stream_time() - self._ttl
        entries = super().scan(low, BEHIND if end is None else ENTRY + end, reverse)
        return ((at[len(ENTRY) :], entry) for at, entry in entries if entry[1] > dead)

    def _newest(self, at: bytes) -> Any:
        stored = self.staged.get(at, MISSING)
        return self.load(at) if stored is MISSING else stored

    def _stage(self, at: bytes, stored: bytes | None) -> None:
        if self.undo is not None:
            self.undo.append((self.staged, at, self.staged.get(at, MISSING)))
        self.staged_bytes += ENTRY_BYTES + len(at) + (0 if stored is None else len(stored))
        self.staged[at] = stored

    # -- sweeping ------------------------------------------------------------------------------------------

    def _stretch_of(self, time_ms: int) -> int:
        return time_ms - time_ms % self._stretch

    def _live_from(self) -> int:
        """Where the first stretch begins in which something may live."""
        return self._stretch_of(self._stream_time() - self._ttl + 1)

    def _expired(self, before: int) -> Iterator[bytes]:
        """Committed entries of the first layout before ``before`` that nothing staged has taken away."""
        start = WRITTEN if self._swept is None else _written(self._swept, b"")
        for at, _ in self._scan_backend(start, _written(before, b"")):
            newest = self.staged.get(at, MISSING)
            if newest is MISSING:
                newest = self._sealed.get(at, MISSING)
            if newest is not None:
                yield at

    @property
    def changed(self) -> bool:
        if self.staged:
            return True
        live = self._live_from()
        if self._swept is not None and live <= self._swept:
            return False
        if next(self._expired(live), None) is not None:
            return True
        if not self._sealed:
            self._swept = live
        return False

    def expire(self) -> None:
        """Stage tombstones for entries of stretches that have wholly expired."""
        live = self._live_from()
        if self._swept is not None and live <= self._swept:
            return
        staged = self.staged
        limit = max(SWEPT_PER_COMMIT, 2 * len(staged))
        bound = _written(live, b"")
        for at in [at for at, stored in staged.items() if at < bound and stored is not None]:
            entry = ENTRY + at[KEY_AT:]
            if self.load(entry) is None:
                # It came and went between two commits: no trace.
                del staged[at]
                del staged[entry]
            else:
                self._take_away(at)
        for swept, at in enumerate(self._expired(live)):
            if swept == limit:
                # The stretch in hand is not empty yet.
                self._swept = unpack_time(at, len(WRITTEN))
                return
            self._take_away(at)
        self._swept = live

    def _take_away(self, at: bytes) -> None:
        key = at[KEY_AT:]
        self.staged[at] = None
        self.staged_bytes += 2 * (ENTRY_BYTES + len(at))
        stored = self._newest(ENTRY + key)
        if stored is None:
            return
        written = unpack_header(stored)[1]
        if written + self._ttl <= self._stream_time():
            self.staged[ENTRY + key] = None
        else:
            # It was put there under a shorter stretch, or was written since under another one.
            self.staged[_written(self._stretch_of(written), key)] = _NOTHING

    def discard(self) -> None:
        super().discard()
        self._swept = None


def _written(time_ms: int, key: bytes) -> bytes:
    return WRITTEN + pack_time(time_ms) + key
