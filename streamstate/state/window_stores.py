"""Window stores and session stores: what a key had in stretches of time, for as long as they are retained.

Rule of this module: it lays entries out in a windowed staging overlay, whose segments keep their order and delete what
has expired. The time of a store is the greatest start, or end, that was put; what is older than the retention by it is
neither shown nor taken.

Layouts: ``window_keys.bucket`` of the segment and the key, then the window's start; or, of sessions, their end, which
also says in which segment they are, and their start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streamstate.state.staging import StagedStore
from streamstate.state.window_index import NO_TIME, WindowIndex
from streamstate.windows import Windowed, checked_time
from streamstate.windows.keys import TIME_KEY, bucket, key_in_bucket, pack_time, pack_times, unpack_time, unpack_times

# Where the times stand behind the key in a bucket: after the segment and the length of the key.
_KEY_AT = 12


class _TimeStore:
    """What both have in common.

    Args:
        staging: the overlay of a store with segments.
        timestamp: gives the event time (ms) of the record in hand.
    """

    __slots__ = ("_key", "_length", "_segments", "_spec", "_staging", "_timestamp")

    def __init__(self, staging: StagedStore, timestamp: Callable[[], int]) -> None:
        assert staging.segments is not None, "not laid out by time"
        assert staging.spec.segments is not None, "not laid out by time"
        self._staging = staging
        self._spec = staging.spec
        self._key = staging.spec.encoded_key
        self._segments: WindowIndex = staging.segments
        self._length = staging.spec.segments.length_ms
        self._timestamp = timestamp

    def _from(self, start_ms: int | None) -> int:
        """The first time to look at: what is older has expired."""
        live = self._segments.first_live_ms
        if live is None:
            live = NO_TIME
        return live if start_ms is None else max(start_ms, live)

    def _until(self, end_ms: int | None) -> int:
        """The last time to look at: nothing is later than the store's time."""
        now = self._segments.clock[TIME_KEY]
        return now if end_ms is None else min(end_ms, now)

    def _observe(self, time_ms: int) -> bool:
        """Time has come so far; false when it is too old to be kept."""
        if time_ms > self._segments.clock[TIME_KEY]:
            self._segments.advance(time_ms)
        live = self._segments.first_live_ms
        return live is None or time_ms >= live

    def _prefixes(self, key: bytes, first_ms: int, last_ms: int) -> list[bytes]:
        """The buckets of a key in which there may be entries of these times, in order."""
        length = self._length
        return [bucket(at, key) for at in range(first_ms // length * length, last_ms + 1, length)]

    def _write(self, prefix: bytes, at: bytes, value: Any) -> None:
        there = self._staging.get(at) is not None
        if value is None:
            if there:
                self._segments.delete(at)
                self._segments.remove(prefix, at)
            return
        encoded = self._spec.encoded_value(value)
        if not there:
            self._segments.created(at)
            self._segments.insert(prefix, at)
        self._staging.put(at, encoded, self._timestamp())

    def _value(self, at: bytes) -> Any:
        entry = self._staging.get(at)
        return None if entry is None else self._spec.value.deserialize(entry[0])

    def _values(self, found: Iterable[bytes]) -> Iterator[tuple[bytes, Any]]:
        """The entries that are still there."""
        return ((at, value) for at in found if (value := self._value(at)) is not None)

    def _scan(self, first_ms: int, last_ms: int) -> Iterator[tuple[bytes, Any]]:
        """All entries of the segments of these times."""
        length = self._length
        if first_ms > last_ms:
            return iter(())
        start, end = pack_time(first_ms // length * length), pack_time((last_ms // length + 1) * length)
        decode = self._spec.value.deserialize
        found = ((at, decode(entry[0])) for at, entry in self._staging.scan(start, end))
        return ((at, value) for at, value in found if value is not None)


class WindowStore(_TimeStore):
    """Implements ``streamstate.operators.process.store_views.WindowStore``."""

    __slots__ = ()

    def put(self, key: Any, value: Any, start_ms: int | None = None) -> bool:
        encoded = self._key(key)
        if start_ms is None:
            start_ms = self._timestamp()
        else:
            checked_time(start_ms, f"a window of store {self._spec.name!r}")
        if not self._observe(start_ms):
            return False
        prefix = bucket(start_ms // self._length * self._length, encoded)
        self._write(prefix, prefix + pack_time(start_ms), value)
        return True

    def get(self, key: Any, start_ms: int) -> Any:
        encoded = self._key(key)
        if not self._from(None) <= start_ms <= self._until(None):
            return None
        return self._value(bucket(start_ms // self._length * self._length, encoded) + pack_time(start_ms))

    def fetch(
        self, key: Any, start_ms: int | None = None, end_ms: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[int, Any]]:
        encoded = self._key(key)
        first, last = self._from(start_ms), self._until(end_ms)
        found: list[bytes] = []
        for prefix in self._prefixes(encoded, first, last):
            keys = self._segments.bucket(prefix)
            low, high = bisect_left(keys, prefix + pack_time(first)), bisect_left(keys, prefix + pack_time(last + 1))
            found += keys[low:high]
        if reverse:
            found.reverse()
        behind = _KEY_AT + len(encoded)
        return ((unpack_time(at, behind), value) for at, value in self._values(found))

    def fetch_all(self, start_ms: int | None = None, end_ms: int | None = None) -> Iterator[tuple[Windowed[Any], Any]]:
        first, last = self._from(start_ms), self._until(end_ms)
        size, decode = self._spec.window_ms, self._spec.key.deserialize
        assert size is not None, "a window store without windows"

        def window(at: bytes) -> Windowed[Any]:
            key = key_in_bucket(at)
            start = unpack_time(at, _KEY_AT + len(key))
            return Windowed(decode(key), start, start + size)

        found = ((window(at), value) for at, value in self._scan(first, last))
        return (entry for entry in found if first <= entry[0].start <= last)


class SessionStore(_TimeStore):
    """Implements ``streamstate.operators.process.store_views.SessionStore``."""

    __slots__ = ()

    def put(self, key: Any, start_ms: int, end_ms: int, value: Any) -> bool:
        encoded = self._key(key)
        for time_ms in (start_ms, end_ms):
            checked_time(time_ms, f"a session of store {self._spec.name!r}")
        if start_ms > end_ms:
            raise ValueError(f"store {self._spec.name!r}: a session from {start_ms} ends before that, at {end_ms}")
        if not self._observe(end_ms):
            return False
        prefix = bucket(end_ms // self._length * self._length, encoded)
        self._write(prefix, prefix + pack_times(end_ms, start_ms), value)
        return True

    def remove(self, key: Any, start_ms: int, end_ms: int) -> None:
        for time_ms in (start_ms, end_ms):
            checked_time(time_ms, f"a session of store {self._spec.name!r}")
        prefix = bucket(end_ms // self._length * self._length, self._key(key))
        self._write(prefix, prefix + pack_times(end_ms, start_ms), None)

    def get(self, key: Any, start_ms: int, end_ms: int) -> Any:
        encoded = self._key(key)
        if not self._from(None) <= end_ms <= self._until(None):
            return None
        return self._value(bucket(end_ms // self._length * self._length, encoded) + pack_times(end_ms, start_ms))

    def fetch(
        self, key: Any, earliest_end_ms: int | None = None, latest_start_ms: int | None = None
    ) -> Iterator[tuple[Windowed[Any], Any]]:
        encoded = self._key(key)
        first = self._from(earliest_end_ms)
        found: list[bytes] = []
        for prefix in self._prefixes(encoded, first, self._until(None)):
            keys = self._segments.bucket(prefix)
            found += keys[bisect_left(keys, prefix + pack_time(first)) :]
        if latest_start_ms is not None:
            behind = _KEY_AT + len(encoded)
            found = [at for at in found if unpack_times(at, behind)[1] <= latest_start_ms]
        return ((self._session(key, at), value) for at, value in self._values(found))

    def fetch_all(self) -> Iterator[tuple[Windowed[Any], Any]]:
        first, decode = self._from(None), self._spec.key.deserialize
        found = (
            (self._session(decode(key_in_bucket(at)), at), value) for at, value in self._scan(first, self._until(None))
        )
        return (session for session in found if session[0].end >= first)

    @staticmethod
    def _session(key: Any, at: bytes) -> Windowed[Any]:
        end, start = unpack_times(at, _KEY_AT + len(key_in_bucket(at)))
        return Windowed(key, start, end)
