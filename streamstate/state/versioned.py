"""Versioned key-value stores: what a key had at a time, as far back as the store's history goes.

Rule of this module: it lays versions out in a staging overlay and keeps nothing of its own. Semantics are those of
Kafka Streams' versioned stores: the newest version of a key never expires, older ones do once the time for which they
held is further back than the history; a version that is older than that on arrival is not taken.

Two layouts, both of them behind each other in one store:

- the newest version of a key, where it has a value: ``LIVE``, key; the entry's timestamp is the version's.
- every version that was superseded, by the time at which it was: ``window_keys.bucket`` of that time and the key, then
  that time and the version's own. One of no length marks a deletion with nothing after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from streamstate.state.staging import StagedStore
from streamstate.state.window_index import NO_TIME
from streamstate.windows.keys import TIME_KEY, bucket, pack_time, pack_times, unpack_times

# Behind every time that a segment can have, before ``TIME_KEY``.
LIVE, AFTER_LIVE = b"\xfe", b"\xff"
# Before the value of a superseded version: whether it has one.
_NOTHING, _VALUE = b"\x00", b"\x01"


class Version(NamedTuple):
    """A superseded version: where it lies, and for which times it held."""

    prefix: bytes
    key: bytes
    since: int
    until: int


class Versions:
    """The versions of all keys of one store, as bytes.

    Args:
        staging: the overlay, made by ``staged_store`` of a spec with ``history_ms``.
    """

    __slots__ = ("_clock", "_history", "_length", "_segments", "_staging")

    def __init__(self, staging: StagedStore) -> None:
        spec, segments = staging.spec, staging.segments
        assert segments is not None, "not versioned"
        assert spec.segments is not None, "not versioned"
        assert spec.history_ms is not None, "not versioned"
        self._staging = staging
        self._segments = segments
        self._clock = segments.clock
        self._history = spec.history_ms
        self._length = spec.segments.length_ms

    @property
    def observed_ms(self) -> int:
        """The greatest timestamp that was put; -1 before the first."""
        now = self._clock[TIME_KEY]
        return -1 if now == NO_TIME else now

    def live(self, start: bytes, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, tuple[bytes, int]]]:
        """Keys with their newest versions, ``start <= key < end``."""
        entries = self._staging.scan(LIVE + start, AFTER_LIVE if end is None else LIVE + end, reverse)
        return ((key[len(LIVE) :], entry) for key, entry in entries)

    # -- reading -------------------------------------------------------------------------------------------

    def newest(self, key: bytes) -> tuple[bytes, int] | None:
        """The newest version as (value, timestamp); None where it is a deletion, or there is none."""
        return self._staging.get(LIVE + key)

    def at(self, key: bytes, time_ms: int) -> tuple[bytes, int] | None:
        """The version that held at ``time_ms``; None where there was none, or it is beyond the history."""
        live = self._staging.get(LIVE + key)
        if live is not None and live[1] <= time_ms:
            return live
        if time_ms < self._clock[TIME_KEY] - self._history:
            return None
        found = self._after(key, time_ms)
        if found is None or found.since > time_ms:
            return None
        entry = self._staging.get(found.key)
        assert entry is not None, "a version that is listed and not there"
        stored: bytes = entry[0]
        return (stored[1:], found.since) if stored[:1] == _VALUE else None

    def _after(self, key: bytes, time_ms: int) -> Version | None:
        """The first superseded version that held until later than ``time_ms``."""
        wanted = pack_time(time_ms + 1)
        for segment in range(time_ms // self._length, self._clock[TIME_KEY] // self._length + 1):
            prefix = bucket(segment * self._length, key)
            keys = self._segments.bucket(prefix)
            at = bisect_left(keys, prefix + wanted)
            if at < len(keys):
                return self._version(prefix, keys[at])
        return None

    def _last(self, key: bytes) -> Version | None:
        """The superseded version that held last."""
        now = self._clock[TIME_KEY]
        for segment in range(now // self._length, (now - self._history) // self._length - 1, -1):
            prefix = bucket(segment * self._length, key)
            keys = self._segments.bucket(prefix)
            if keys:
                return self._version(prefix, keys[-1])
        return None

    def _version(self, prefix: bytes, key: bytes) -> Version:
        until, since = unpack_times(key, len(prefix))
        return Version(prefix, key, since, until)

    # -- writing -------------------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes | None, timestamp: int) -> bool | None:
        """Add a version; None deletes from ``timestamp`` on.

        Returns:
            Whether it is the newest one of its key; None: it is older than the history and was not taken.
        """
        now = self._clock[TIME_KEY]
        if timestamp > now:
            self._segments.advance(timestamp)
        elif timestamp < now - self._history:
            return None
        live = self._staging.get(LIVE + key)
        if live is None:
            last = self._last(key)
            if last is not None and last.until > timestamp:
                self._insert(key, value, timestamp, last.until)
                return False
        elif timestamp < live[1]:
            self._insert(key, value, timestamp, live[1])
            return False
        elif timestamp > live[1]:
            self._supersede(key, live[0], live[1], timestamp)
        if value is None:
            self._staging.put(LIVE + key, None, timestamp)
            if live is None or live[1] == timestamp:
                # A deletion behind which nothing lies: remembered for as long as older versions may come.
                self._supersede(key, None, timestamp, timestamp)
        else:
            self._staging.put(LIVE + key, value, timestamp)
        return True

    def _insert(self, key: bytes, value: bytes | None, timestamp: int, before: int) -> None:
        """A version that others have superseded already, at ``before`` at the latest."""
        found = self._after(key, timestamp)
        if found is None:
            self._supersede(key, value, timestamp, before)
        elif found.since > timestamp:
            self._supersede(key, value, timestamp, found.since)
        else:
            if found.since < timestamp:
                entry = self._staging.get(found.key)
                assert entry is not None, "a version that is listed and not there"
                split: bytes = entry[0]
                self._supersede(key, split[1:] if split[:1] == _VALUE else None, found.since, timestamp)
            # Now until when the one that it cuts off, or replaces, held.
            self._supersede(key, value, timestamp, found.until)
            if found.since < timestamp:
                self._remove(found)

    def _supersede(self, key: bytes, value: bytes | None, since: int, until: int) -> None:
        prefix = bucket(until // self._length * self._length, key)
        at = prefix + pack_times(until, since)
        self._segments.insert(prefix, at)
        self._staging.put(at, _NOTHING if value is None else _VALUE + value, since)

    def _remove(self, version: Version) -> None:
        self._segments.remove(version.prefix, version.key)
        self._staging.put(version.key, None, version.since)
