"""What a windowed store has besides its entries: the time it has seen, what has expired, a key's entries in order.

Rule of this module: it lives and is dropped with the staging that it belongs to, and is rebuilt from the backend.
Expiry is decided by the highest time an operator has put into ``clock``, never by the wall clock. What expires gets a
tombstone in the changelog, in the transaction whose records made it expire, and goes from the backend as one range.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Any

from streamstate.state.format import VERSION, pack_header, unpack_header
from streamstate.store_spec import SegmentSpec
from streamstate.window_keys import TIME_KEY, pack_time

# A commit expires this many entries, or twice as many as it writes, so that none takes long and no backlog grows.
EXPIRED_PER_COMMIT = 10_000
# Rough memory of a key in a bucket.
KEY_BYTES = 120
NO_TIME = -1

Scan = Callable[[bytes | None, bytes | None], Iterator[tuple[bytes, bytes]]]
UndoLog = list[tuple[dict[bytes, Any], bytes, Any]]


class Segments:
    """See the module.

    Args:
        spec: how long entries live.
        scan: gives the backend's entries of a range.
        prime: takes a committed entry into the store's cache.
        undo: where to log what a failed record takes back; None when nothing needs it.

    Attributes:
        clock: the highest time (ms) the operator has seen, under ``TIME_KEY``; ``NO_TIME`` before the first record.
        bound: keys below it are gone once the transaction is committed; empty when there are none.
        memory_bytes: of the buckets, roughly.
    """

    __slots__ = ("_buckets", "_done", "_expired", "_prime", "_scan", "_spec", "_undo", "bound", "clock",
                 "memory_bytes")  # fmt: skip

    def __init__(
        self, spec: SegmentSpec, scan: Scan, prime: Callable[[bytes, bytes], None], undo: UndoLog | None
    ) -> None:
        self._spec = spec
        self._scan = scan
        self._prime = prime
        self._undo = undo
        self.clock: dict[bytes, int] = {TIME_KEY: NO_TIME}
        self.bound = b""
        self.memory_bytes = 0
        self._done = b""
        self._expired: list[bytes] = []
        self._buckets: dict[bytes, list[bytes]] = {}

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
        self.clock[TIME_KEY] = NO_TIME if stored is None else unpack_header(stored)[1]
        self.bound = self._done = b""
        self._expired.clear()
        self._buckets.clear()
        self.memory_bytes = 0

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

    def expire(self, staged: dict[bytes, Any]) -> None:
        """Put tombstones into ``staged`` for committed entries that have expired, and drop those that never were."""
        live = self.first_live_ms
        if live is None:
            return
        end = pack_time(live // self._spec.length_ms)
        if end <= self._done:
            return
        limit = max(EXPIRED_PER_COMMIT, 2 * len(staged))
        bound = end
        expired = self._expired
        for key, _ in self._scan(self._done, end):
            if len(expired) == limit:
                bound = key
                break
            expired.append(key)
        for key in [key for key in staged if key < bound]:
            del staged[key]
        staged.update(dict.fromkeys(expired))
        self.bound = bound

    def seal(self, sealed: dict[bytes, bytes | None]) -> None:
        """Add the time to what the transaction writes."""
        if self.clock[TIME_KEY] != NO_TIME:
            sealed[TIME_KEY] = pack_header(VERSION, self.clock[TIME_KEY])

    def committed(self, cache_bytes: int) -> list[bytes]:
        """The transaction is in the backend; return the keys that are gone."""
        gone = self._expired
        self._expired = []
        if self.bound:
            self._done, self.bound = self.bound, b""
        if self.memory_bytes > cache_bytes:
            self._buckets.clear()
            self.memory_bytes = 0
        return gone
