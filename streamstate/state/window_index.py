"""What a windowed store has besides its entries: the time it has seen, what has expired, a key's entries in order.

Rule of this module: it lives and is dropped with the staging that it belongs to, and is rebuilt from the backend. Like
staging it has two layers, what was sealed for the commit under way and what came after; both are dropped together. What
was created since the last seal leaves no trace when it is deleted before the next. Expiry is decided by the highest
time an operator has put into ``clock``, never by the wall clock. What expires gets a tombstone in the changelog, in the
transaction whose records made it expire, and goes from the backend as one range, once that transaction is committed.

Most of what is asked for is newer than all that the backend had at the start, and was never anywhere but here: keys
behind ``newest`` are not looked for below.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Any

from streamstate.state.entry_format import VERSION, pack_header, unpack_header
from streamstate.state.spec import SegmentSpec
from streamstate.state.undo import MISSING, UndoLog
from streamstate.windows import LATEST_TIME_MS
from streamstate.windows.keys import INDEX_MARK, TIME_KEY, pack_time, unpack_time

# A commit expires this many entries, or twice as many as it writes, so that none takes long and no backlog grows.
EXPIRED_PER_COMMIT = 10_000
# Rough memory of a key in a bucket.
KEY_BYTES = 120
# Entries of the index that are read at once.
READ_AHEAD = 256
# Where there is nothing; not to be changed.
_NONE: list[bytes] = []
# Before every time that a store takes, so that each of them moves the time of a store that has seen none.
NO_TIME = -LATEST_TIME_MS - 1

Scan = Callable[[bytes | None, bytes | None], Iterator[tuple[bytes, bytes]]]


class SortedKeys:
    """Keys in order, with some that are not there any more: whoever reads it looks them up.

    >>> keys = SortedKeys()
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
        """Keys with ``start <= key < end``, each once; not to be changed."""
        keys = self._keys
        low = bisect_left(keys, start)
        if low == len(keys) or keys[low] >= end:
            return _NONE
        return list(dict.fromkeys(keys[low : bisect_left(keys, end, low)]))

    def move_to(self, other: SortedKeys) -> None:
        """Give all of them to ``other``, which forgets its own."""
        self._keys, other._keys = [], self._keys

    def clear(self) -> None:
        """Forget all."""
        self._keys.clear()


class ReadAhead:
    """Entries of the index that the backend has, some more of them than were asked for: mostly it is asked for a
    millisecond, then for the next.

    Args:
        scan: gives the backend's entries of a range.
    """

    __slots__ = ("_end", "_keys", "_scan", "_start")

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._start = self._end = b""
        self._keys: list[bytes] = []

    def forget(self) -> None:
        """The backend has changed."""
        self._start = self._end = b""
        self._keys = []

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        """Keys of the index with ``start <= key < end``, in order."""
        if not self._start <= start or end > self._end:
            self._read(start, end)
        keys = self._keys
        low = bisect_left(keys, start)
        return _NONE if low == len(keys) or keys[low] >= end else keys[low : bisect_left(keys, end, low)]

    def _read(self, start: bytes, end: bytes) -> None:
        self._start, self._end, self._keys = start, TIME_KEY, []
        position: bytes | None = start
        while position is not None:
            position = self._read_from(position, end)

    def _read_from(self, start: bytes, end: bytes) -> bytes | None:
        keys = self._keys
        for key, _ in self._scan(start, TIME_KEY):
            if key[8:12] != INDEX_MARK:
                # The entries of a segment, of which there may be many, lie before the index of its first millisecond.
                return key[:8] + INDEX_MARK
            if key >= end and len(keys) >= READ_AHEAD:
                self._end = key
                return None
            keys.append(key)
        return None


class WindowIndex:
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
        buckets: keys by prefix, as far as they are known; the same dict for life, for operators that look first and
            ask ``bucket`` only when it is not there.
    """

    __slots__ = ("_ahead", "_done", "_expired", "_fresh", "_index", "_index_order", "_known_time", "_newest", "_prime",
                 "_scan", "_sealed_index", "_sealed_noted", "_sealed_order", "_spec", "_staged", "_touched", "_undo",
                 "bound", "buckets", "clock", "memory_bytes", "noted")  # fmt: skip

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
        self.noted = SortedKeys()
        self._done = b""
        self._known_time = NO_TIME
        self._expired: list[bytes] = []
        self.buckets: dict[bytes, list[bytes]] = {}
        # Those changed since the last seal: no backend has what is in them.
        self._touched: set[bytes] = set()
        # A bucket behind this that is not in memory is empty.
        self._newest = b""
        # Created since the last seal, where nothing was.
        self._fresh: set[bytes] = set()
        # Entries of the index since the last seal: true for those that are there. Then those of the commit under way.
        self._index: dict[bytes, bool] = {}
        self._index_order = SortedKeys()
        self._sealed_index: dict[bytes, bool] = {}
        self._sealed_order = SortedKeys()
        self._sealed_noted = SortedKeys()
        self._ahead = ReadAhead(scan)

    # -- the time ------------------------------------------------------------------------------------------

    def advance(self, time_ms: int) -> None:
        """The operator has seen ``time_ms``, which is later than what it had seen."""
        if self._undo is not None:
            self._undo.append((self.clock, TIME_KEY, self.clock[TIME_KEY]))
        self.clock[TIME_KEY] = time_ms

    @property
    def first_live_ms(self) -> int | None:
        """Entries of earlier times are not read any more; None when all live."""
        now = self.clock[TIME_KEY]
        if self._spec.retention_ms is None or now == NO_TIME:
            return None
        return self._spec.first_live(now)

    def load(self, stored: bytes | None, newest: bytes) -> None:
        """Start over from the backend, which has ``stored`` under ``TIME_KEY``, and no entry of a time behind
        ``newest``."""
        self.clock[TIME_KEY] = self._known_time = NO_TIME if stored is None else unpack_header(stored)[1]
        self.bound = self._done = b""
        self._expired.clear()
        self.buckets.clear()
        self.memory_bytes = 0
        self._newest = newest
        self.noted.clear()
        self._index.clear()
        self._index_order.clear()
        self._fresh.clear()
        self._touched.clear()
        self._forget_sealed()

    def _forget_sealed(self) -> None:
        self._sealed_noted.clear()
        self._sealed_index = {}
        self._sealed_order.clear()
        self._ahead.forget()

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
        index, sealed = self._index, self._sealed_index
        created, before = self._index_order.between(start, end), self._sealed_order.between(start, end)
        stored = self._ahead.between(start, end)
        if not created and not before and not stored:
            return []
        found = {key for key in created if index.get(key)}
        found.update(key for key in before if index.get(key, sealed.get(key)))
        found.update(key for key in stored if index.get(key, sealed.get(key, True)))
        return [(unpack_time(key), key[12:]) for key in sorted(found)]

    # -- created keys, in order ----------------------------------------------------------------------------

    def noted_between(self, start: bytes, end: bytes) -> list[bytes]:
        """Keys with ``start <= key < end`` that were noted and are not in the backend, in order. Some may not be there
        any more."""
        noted, sealed = self.noted.between(start, end), self._sealed_noted.between(start, end)
        return sorted({*noted, *sealed}) if noted and sealed else [*(noted or sealed)]

    # -- the entries of a key, in order --------------------------------------------------------------------

    def bucket(self, prefix: bytes) -> list[bytes]:
        """Keys of all entries that begin with ``prefix``, in order; not to be changed."""
        keys = self.buckets.get(prefix)
        if keys is None:
            if prefix > self._newest:
                return _NONE
            # What is behind the prefix is at most 16 bytes of times.
            keys = []
            for key, stored in self._scan(prefix, prefix + b"\xff" * 17):
                keys.append(key)
                self._prime(key, stored)
            self.buckets[prefix] = keys
            self.memory_bytes += KEY_BYTES * (len(keys) + 1)
        return keys

    def insert(self, prefix: bytes, key: bytes) -> None:
        """An entry was put."""
        keys = self.buckets.get(prefix)
        if keys is None:
            keys = self.bucket(prefix)
            if keys is _NONE:
                self._begin(prefix, key)
                return
        at = bisect_left(keys, key) if keys and keys[-1] >= key else len(keys)
        if at < len(keys) and keys[at] == key:
            return
        if self._undo is not None:
            keys = self._writable(prefix, keys)
        if at == len(keys):
            keys.append(key)
        else:
            keys.insert(at, key)
        self._touched.add(prefix)
        self.memory_bytes += KEY_BYTES

    def append(self, prefix: bytes, keys: list[bytes], key: bytes) -> None:
        """As ``insert``, of a key behind all of the bucket's ``keys``, where nothing is taken back."""
        if keys is _NONE:
            self._begin(prefix, key)
        else:
            keys.append(key)
            self._touched.add(prefix)
            self.memory_bytes += KEY_BYTES

    def _begin(self, prefix: bytes, key: bytes) -> None:
        if self._undo is not None:
            self._undo.append((self.buckets, prefix, MISSING))
        self.buckets[prefix] = [key]
        self._touched.add(prefix)
        self.memory_bytes += 2 * KEY_BYTES

    def remove(self, prefix: bytes, key: bytes) -> None:
        """An entry was deleted."""
        keys = self.bucket(prefix)
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            if self._undo is not None:
                keys = self._writable(prefix, keys)
            del keys[at]
            self._touched.add(prefix)
            self.memory_bytes -= KEY_BYTES

    def _writable(self, prefix: bytes, keys: list[bytes]) -> list[bytes]:
        assert self._undo is not None, "a copy that nobody takes back"
        self._undo.append((self.buckets, prefix, keys))
        self.buckets[prefix] = keys = keys.copy()
        return keys

    # -- expiry and the transaction ------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """True when a commit has something to write besides staged entries."""
        return bool(self._index) or self.clock[TIME_KEY] != self._known_time

    def expire(self) -> None:
        """Find committed entries that have expired, and drop those that were never committed. Called when no commit is
        under way, so that the backend has all that is committed."""
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
        self._drop_buckets(end)
        self.bound = bound

    def _drop_buckets(self, end: bytes) -> None:
        buckets = self.buckets
        for prefix in [prefix for prefix in buckets if prefix < end]:
            self.memory_bytes -= KEY_BYTES * (len(buckets.pop(prefix)) + 1)
        self._newest = max(self._newest, end)

    def seal(self, writes: dict[bytes, bytes | None]) -> None:
        """Add the time, the index and tombstones of what has expired to what the transaction writes. What comes from
        here on belongs to the next."""
        now = self.clock[TIME_KEY]
        if now != self._known_time:
            writes[TIME_KEY] = pack_header(VERSION, now)
            self._known_time = now
        for key, there in self._index.items():
            writes[key] = pack_header(VERSION, 0) if there else None
        writes.update(dict.fromkeys(self._expired))
        self._expired = []
        self._sealed_index, self._index = self._index, {}
        self._index_order.move_to(self._sealed_order)
        self.noted.move_to(self._sealed_noted)
        self._fresh.clear()
        self._touched.clear()

    def committed(self, cache_bytes: int) -> bytes:
        """The transaction is in the backend; return the key below which all is gone from it."""
        self._forget_sealed()
        if self.bound:
            self._done, self.bound = self.bound, b""
        if self.memory_bytes > cache_bytes:
            self._drop_read()
        return self._done

    def _drop_read(self) -> None:
        """Forget the buckets that can be read again from the backend."""
        buckets = self.buckets
        kept = {prefix: buckets[prefix] for prefix in self._touched if prefix in buckets}
        self._newest = max(self._newest, max((prefix for prefix in buckets if prefix not in kept), default=b""))
        buckets.clear()
        buckets.update(kept)
        self.memory_bytes = KEY_BYTES * sum(len(keys) + 1 for keys in kept.values())
