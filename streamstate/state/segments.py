"""What a windowed store has besides its entries: the time it has seen, what has expired, a key's entries in order.

Rule of this module: it lives and is dropped with the staging that it belongs to, and is rebuilt from the backend. What
was created since the last commit leaves no trace when it is deleted before the next. Expiry is decided by the highest
time an operator has put into ``clock``, never by the wall clock. What expires gets a tombstone in the changelog, in the
transaction whose records made it expire, and goes from the backend as one range.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Any

from streamstate.state.entries import MISSING, UndoLog
from streamstate.state.format import VERSION, pack_header, unpack_header
from streamstate.store_spec import SegmentSpec
from streamstate.window_keys import INDEX_MARK, TIME_KEY, pack_time, unpack_time

# A commit expires this many entries, or twice as many as it writes, so that none takes long and no backlog grows.
EXPIRED_PER_COMMIT = 10_000
# Rough memory of a key in a bucket.
KEY_BYTES = 120
NO_TIME = -1

Scan = Callable[[bytes | None, bytes | None], Iterator[tuple[bytes, bytes]]]


class InOrder:
    """Keys in order, with some that are not there any more: whoever reads it looks them up.

    >>> keys = InOrder()
    >>> for key in (b"b", b"a", b"c", b"a"):
    ...     keys.add(key)
    >>> keys.between(b"a", b"c")
    [b'a', b'b']
    """

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: list[bytes] = []

    def add(self, key: bytes) -> None:
        """Note a key."""
        keys = self._keys
        if not keys or key > keys[-1]:
            keys.append(key)
        else:
            insort(keys, key)

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        """Keys with ``start <= key < end``, each once."""
        keys = self._keys
        return list(dict.fromkeys(keys[bisect_left(keys, start) : bisect_left(keys, end)]))

    def from_(self, start: bytes) -> Iterator[bytes]:
        """Keys with ``start <= key``, some of them twice."""
        keys = self._keys
        return (keys[at] for at in range(bisect_left(keys, start), len(keys)))

    def clear(self) -> None:
        """Forget all."""
        self._keys.clear()


class Segments:
    """See the module.

    Args:
        spec: how long entries live.
        staged: uncommitted entries of the store.
        scan: gives the backend's entries of a range.
        prime: takes a committed entry into the store's cache.
        undo: where to log what a failed record takes back; None when nothing needs it.

    Attributes:
        clock: the highest time (ms) the operator has seen, under ``TIME_KEY``; ``NO_TIME`` before the first record.
        bound: keys below it are gone once the transaction is committed; empty when there are none.
        memory_bytes: of the buckets, roughly.
        noted: created keys, in order, of stores that are read by time (see ``StagedStore.between``).
    """

    __slots__ = ("_buckets", "_done", "_expired", "_fresh", "_index", "_index_order", "_known_time", "_prime", "_scan",
                 "_spec", "_staged", "_undo", "bound", "clock", "memory_bytes", "noted")  # fmt: skip

    def __init__(
        self,
        spec: SegmentSpec,
        staged: dict[bytes, Any],
        scan: Scan,
        prime: Callable[[bytes, bytes], None],
        undo: UndoLog | None,
    ) -> None:
        self._spec = spec
        self._staged = staged
        self._scan = scan
        self._prime = prime
        self._undo = undo
        self.clock: dict[bytes, int] = {TIME_KEY: NO_TIME}
        self.bound = b""
        self.memory_bytes = 0
        self.noted = InOrder()
        self._done = b""
        self._known_time = NO_TIME
        self._expired: list[bytes] = []
        self._buckets: dict[bytes, list[bytes]] = {}
        # Created since the last commit, where nothing was.
        self._fresh: set[bytes] = set()
        # Uncommitted entries of the index: true for those that are there.
        self._index: dict[bytes, bool] = {}
        self._index_order = InOrder()

    # -- the time ------------------------------------------------------------------------------------------

    def advance(self, time_ms: int) -> None:
        """The operator has seen ``time_ms``, which is later than what it had seen."""
        if self._undo is not None:
            self._undo.append((self.clock, TIME_KEY, self.clock[TIME_KEY]))
        self.clock[TIME_KEY] = time_ms

    @property
    def first_live_ms(self) -> int | None:
        """Entries of earlier times are not read any more; None when all live."""
        if self._spec.retention_ms is None or self.clock[TIME_KEY] == NO_TIME:
            return None
        return self.clock[TIME_KEY] - self._spec.retention_ms + 1

    def load(self, stored: bytes | None) -> None:
        """Start over from the backend, which has ``stored`` under ``TIME_KEY``."""
        self.clock[TIME_KEY] = self._known_time = NO_TIME if stored is None else unpack_header(stored)[1]
        self.bound = self._done = b""
        self._expired.clear()
        self._buckets.clear()
        self.memory_bytes = 0
        self._forget_uncommitted()

    def _forget_uncommitted(self) -> None:
        self.noted.clear()
        self._fresh.clear()
        self._index.clear()
        self._index_order.clear()

    # -- creating and deleting -----------------------------------------------------------------------------

    def created(self, key: bytes) -> None:
        """An entry is about to be put where the store has none."""
        if key not in self._staged:
            # Otherwise a tombstone is staged, of an entry that the backend has.
            self._fresh.add(key)

    def delete(self, key: bytes) -> None:
        """Delete an entry that is there."""
        staged = self._staged
        if self._undo is not None:
            self._undo.append((staged, key, staged.get(key, MISSING)))
        if key in self._fresh and key in staged:
            del staged[key]
        else:
            staged[key] = None

    # -- an index by time ----------------------------------------------------------------------------------

    def add_to_index(self, time_ms: int, suffix: bytes) -> None:
        """Note that there is something of that time, where the index has no such entry."""
        key = pack_time(time_ms) + INDEX_MARK + suffix
        if key not in self._index:
            self._fresh.add(key)
        self._set_index(key, True)
        self._index_order.add(key)

    def remove_from_index(self, time_ms: int, suffix: bytes) -> None:
        """Take an entry of the index out."""
        key = pack_time(time_ms) + INDEX_MARK + suffix
        if key in self._fresh and key in self._index:
            if self._undo is not None:
                self._undo.append((self._index, key, self._index[key]))
            del self._index[key]
        else:
            self._set_index(key, False)

    def _set_index(self, key: bytes, there: bool) -> None:
        if self._undo is not None:
            self._undo.append((self._index, key, self._index.get(key, MISSING)))
        self._index[key] = there

    def indexed(self, start_ms: int | None, end_ms: int) -> list[tuple[int, bytes]]:
        """(time, suffix) of the index's entries with ``start_ms <= time < end_ms``, in order; None: from the first."""
        start, end = b"" if start_ms is None else pack_time(start_ms), pack_time(end_ms)
        found = {key for key in self._index_order.between(start, end) if self._index.get(key)}
        for key, _ in self._scan(start, end):
            if key[8:12] == INDEX_MARK and self._index.get(key, True):
                found.add(key)
        return [(unpack_time(key), key[12:]) for key in sorted(found)]

    # -- the entries of a key, in order --------------------------------------------------------------------

    def bucket(self, prefix: bytes) -> list[bytes]:
        """Keys of all entries that begin with ``prefix``, in order; not to be changed."""
        keys = self._buckets.get(prefix)
        if keys is None:
            # What is behind the prefix is at most 16 bytes of times.
            keys = []
            for key, stored in self._scan(prefix, prefix + b"\xff" * 17):
                keys.append(key)
                self._prime(key, stored)
            self._buckets[prefix] = keys
            self.memory_bytes += KEY_BYTES * (len(keys) + 1)
        return keys

    def insert(self, prefix: bytes, key: bytes) -> None:
        """An entry was put."""
        keys = self.bucket(prefix)
        at = bisect_left(keys, key) if keys and keys[-1] >= key else len(keys)
        if at < len(keys) and keys[at] == key:
            return
        keys = self._writable(prefix, keys)
        if at == len(keys):
            keys.append(key)
        else:
            insort(keys, key)
        self.memory_bytes += KEY_BYTES

    def remove(self, prefix: bytes, key: bytes) -> None:
        """An entry was deleted."""
        keys = self.bucket(prefix)
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            del self._writable(prefix, keys)[at]
            self.memory_bytes -= KEY_BYTES

    def _writable(self, prefix: bytes, keys: list[bytes]) -> list[bytes]:
        if self._undo is None:
            return keys
        self._undo.append((self._buckets, prefix, keys))
        self._buckets[prefix] = keys = keys.copy()
        return keys

    # -- expiry and the transaction ------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """True when a commit has something to write besides staged entries."""
        return bool(self._index) or self.clock[TIME_KEY] != self._known_time

    def expire(self) -> None:
        """Stage tombstones for committed entries that have expired, and drop those that were never committed."""
        staged, index = self._staged, self._index
        live = self.first_live_ms
        if live is None:
            return
        end = pack_time(live // self._spec.length_ms * self._spec.length_ms)
        if end <= self._done:
            return
        limit = max(EXPIRED_PER_COMMIT, 2 * (len(staged) + len(index)))
        bound = end
        expired = self._expired
        for key, _ in self._scan(self._done, end):
            if len(expired) == limit:
                bound = key
                break
            expired.append(key)
        for key in [key for key in staged if key < bound]:
            del staged[key]
        for key in [key for key in index if key < bound]:
            del index[key]
        staged.update(dict.fromkeys(expired))
        self.bound = bound

    def seal(self, sealed: dict[bytes, bytes | None]) -> None:
        """Add the time and the index to what the transaction writes."""
        if self.clock[TIME_KEY] != self._known_time:
            sealed[TIME_KEY] = pack_header(VERSION, self.clock[TIME_KEY])
        for key, there in self._index.items():
            sealed[key] = pack_header(VERSION, 0) if there else None

    def committed(self, cache_bytes: int) -> list[bytes]:
        """The transaction is in the backend; return the keys that are gone."""
        gone = self._expired
        self._expired = []
        self._known_time = self.clock[TIME_KEY]
        self._forget_uncommitted()
        if self.bound:
            self._done, self.bound = self.bound, b""
        if self.memory_bytes > cache_bytes:
            self._buckets.clear()
            self.memory_bytes = 0
        return gone
