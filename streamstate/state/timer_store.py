"""Timers: for each key at most one time at which something is to be done, in the order of these times.

Rule of this module: what is set is in the store, and what is in memory are hints where to look first. A timer that was
set again, cancelled, or taken back with its record is noticed when its turn comes; so no hint is ever taken out.

Two layouts, one behind the other in one store, both with the time as the entry's timestamp and no value:

- ``OF_KEY``, the key.
- ``AT``, the time, the key.

In memory are the next few of the second. The store is read for more when they are used up.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Any, Final

from streamstate.state.staging import StagedStore
from streamstate.windows.keys import pack_time, unpack_time

OF_KEY, AT, BEHIND = b"\x00", b"\x01", b"\x02"
KEY_AT: Final = len(AT) + 8
# Timers in memory, at most twice as many.
HINTS: Final = 1_000


class SetTimers:
    """The timers of one store, to be read.

    Args:
        staging: the overlay of a store of kind ``timers`` or ``wall_clock_timers``.
    """

    __slots__ = ("_key", "_spec", "_staging")

    def __init__(self, staging: StagedStore) -> None:
        self._staging = staging
        self._spec = staging.spec
        self._key = staging.spec.encoded_key

    def get(self, key: Any) -> int | None:
        """The time (ms) of the timer of ``key``; None where there is none."""
        entry = self._staging.get(OF_KEY + self._key(key))
        return None if entry is None else entry[1]

    def all(self) -> Iterator[tuple[Any, int]]:
        """(key, time in ms) of all timers, in the order in which they fire."""
        decode = self._spec.key.deserialize
        return ((decode(at[KEY_AT:]), unpack_time(at, len(AT))) for at, _ in self._staging.scan(AT, BEHIND))


class Timers(SetTimers):
    """The same, to be set and to be fired."""

    __slots__ = ("_complete_before", "_firing_ms", "_hints", "_later")

    def __init__(self, staging: StagedStore) -> None:
        super().__init__(staging)
        # Of all timers before that key of the second layout there is a hint; None: of all there are.
        self._complete_before: bytes | None = AT
        self._hints: list[bytes] = []
        self._firing_ms: int | None = None
        # Set while others fire, for a time that has come already: they wait for the next turn.
        self._later: list[bytes] = []

    # -- setting -------------------------------------------------------------------------------------------

    def set(self, key: Any, at_ms: int) -> None:
        """Set or move the timer of ``key``."""
        encoded = self._key(key)
        self._remove(encoded, at_ms)
        self._staging.put(OF_KEY + encoded, b"", at_ms)
        at = AT + pack_time(at_ms) + encoded
        self._staging.put(at, b"", at_ms)
        if self._firing_ms is not None and at_ms <= self._firing_ms:
            self._later.append(at)
        else:
            self._hint(at)

    def cancel(self, key: Any) -> bool:
        """Remove the timer of ``key``; false where there is none."""
        encoded = self._key(key)
        if not self._remove(encoded, None):
            return False
        self._staging.put(OF_KEY + encoded, None, 0)
        return True

    def _remove(self, key: bytes, unless_at_ms: int | None) -> bool:
        entry = self._staging.get(OF_KEY + key)
        if entry is None:
            return False
        if entry[1] != unless_at_ms:
            self._staging.put(AT + pack_time(entry[1]) + key, None, 0)
        return True

    def _hint(self, at: bytes) -> None:
        if self._complete_before is not None and at >= self._complete_before:
            return
        heappush(self._hints, at)
        if len(self._hints) > 2 * HINTS:
            self._hints.sort()
            self._complete_before = self._hints[HINTS]
            del self._hints[HINTS:]

    # -- firing --------------------------------------------------------------------------------------------

    def next_ms(self) -> int | None:
        """The time of the first timer; None where there is none."""
        first = self._first()
        return None if first is None else unpack_time(first, len(AT))

    def due(self, now_ms: int, most: int) -> Iterator[tuple[Any, int]]:
        """Timers that are due, as (key, time), at most so many; each is no more when it is given. One that is set
        meanwhile for a time that the last one given had reached waits for the next call."""
        decode = self._spec.key.deserialize
        try:
            for _ in range(most):
                first = self._first()
                if first is None or unpack_time(first, len(AT)) > now_ms:
                    return
                key, self._firing_ms = first[KEY_AT:], unpack_time(first, len(AT))
                self._staging.put(OF_KEY + key, None, 0)
                self._staging.put(first, None, 0)
                yield decode(key), self._firing_ms
        finally:
            self._firing_ms = None
            later, self._later = self._later, []
            for at in later:
                self._hint(at)

    def _first(self) -> bytes | None:
        hints, get = self._hints, self._staging.get
        while True:
            while hints:
                first = hints[0]
                entry = get(OF_KEY + first[KEY_AT:])
                if entry is not None and entry[1] == unpack_time(first, len(AT)) and first not in self._later:
                    return first
                heappop(hints)
            if self._complete_before is None:
                return None
            # In order, and so a heap.
            found = list(islice(self._staging.scan(self._complete_before, BEHIND), HINTS + 1))
            hints.extend(at for at, _ in found[:HINTS])
            self._complete_before = found[HINTS][0] if len(found) > HINTS else None
