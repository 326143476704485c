"""Aggregations per key and sliding window.

Semantics are Kafka Streams', out-of-order records included. For each record there is the window that ends with it, its
left one, and from the first record after it the window that starts just behind it, its right one. A new record goes
into all windows that hold its time, and makes those that are missing:

- the right window of the record before it, if that reaches to the new one;
- its own left window, which starts from the window before it;
- its own right window, if later records are there, which starts from the last window that holds its time.

Windows do not start before 1970: all earlier left windows are one, from 0 on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from streamstate.operators.context import OperatorFailed
from streamstate.operators.stateless import Forward
from streamstate.operators.windowed import Close, Folding, nothing_closes
from streamstate.state import NO_TIME
from streamstate.topology.window_specs import Aggregator
from streamstate.window_keys import TIME_KEY, bucket, pack_time, unpack_time
from streamstate.windows import SlidingWindows, Windowed


def sliding_windows(folding: Folding) -> tuple[Callable[[Aggregator], Forward], Close]:
    """Sliding windows: entries in buckets by the time of their starts.

    Returns:
        What makes the entry of a parent from its aggregator, and what closes windows.
    """
    windows = folding.spec.windows
    assert isinstance(windows, SlidingWindows), "other windows have operators of their own"
    segments, context, late = folding.segments, folding.context, folding.late
    clock, difference, grace = segments.clock, windows.difference_ms, windows.grace_ms
    close = _closing(folding, windows) if folding.spec.emit == "close" else nothing_closes

    def side(aggregator: Aggregator) -> Forward:
        fold = folding.fold(aggregator)

        def run(key: Any, value: Any, timestamp: int) -> None:
            if key is None or value is None:
                context.dropped += 1
                return
            encoded = folding.encoded(key)
            before = now = clock[TIME_KEY]
            if timestamp > now:
                now = timestamp
                segments.advance(timestamp)
            closed = now - grace
            if timestamp + difference < closed:
                late(key, value, timestamp, closed - timestamp - difference)
                return
            record = _Record(folding, fold, key, value, timestamp, encoded, difference, closed)
            if timestamp < difference:
                record.early()
            else:
                record.take()
            if now != before:
                close(before, now)

        return run

    return side, close


class _Record:
    """One record on its way into the windows around it."""

    __slots__ = ("_closed", "_closing", "_difference", "_encoded", "_fold", "_folding", "_get", "_key", "_length",
                 "_time", "_value")  # fmt: skip

    def __init__(
        self,
        folding: Folding,
        fold: Aggregator,
        key: Any,
        value: Any,
        timestamp: int,
        encoded: bytes,
        difference: int,
        closed: int,
    ) -> None:
        assert folding.store.spec.segments is not None, "a windowed store without segments"
        self._folding = folding
        self._fold = fold
        self._key = key
        self._value = value
        self._time = timestamp
        self._encoded = encoded
        self._difference = difference
        self._closed = closed
        self._closing = folding.spec.emit == "close"
        self._length = folding.store.spec.segments.length_ms
        self._get = folding.store.get

    def take(self) -> None:
        """A record whose left window starts in 1970 or later."""
        time, difference = self._time, self._difference
        starts = self._starts(max(0, time - 2 * difference))
        # The last window that holds the record's time, before this record; and the last one that ends before it.
        around: tuple[Any, int] | None = None
        previous: int | None = None
        left: int | None = None
        has_left = False
        for start in reversed(starts):
            if start > time:
                continue
            state, newest = self._entry(start)
            if start + difference > time:
                around = around or self._entry(start)
                self._update(start, state, newest)
            elif start + difference == time:
                has_left = True
                self._update(start, state, newest)
                if newest >= time:
                    # A record of the same time has made all there is to make.
                    return
                previous = newest
            else:
                left, previous = start, newest
                break
        if previous is not None and previous + 1 not in starts and previous + 1 + difference >= time:
            self._create(previous + 1)
        if not has_left:
            if previous is not None and time - difference <= previous:
                assert left is not None, "a record before this one, but no window of it"
                self._create(time - difference, self._entry(left)[0])
            else:
                self._create(time - difference)
        self._right(starts, around)

    def early(self) -> None:
        """A record whose left window would start before 1970."""
        time = self._time
        starts = self._starts(0)
        around: tuple[Any, int] | None = None
        previous: int | None = None
        for start in starts:
            if start == 0:
                newest = self._entry(0)[1]
                if newest < time:
                    previous = newest
            elif start <= time:
                around = self._entry(start)
                self._update(start, *self._entry(start))
        combined = 0 in starts
        if combined and around is None and self._entry(0)[1] > time:
            around = self._entry(0)
        self._right(starts, around)
        if previous is not None and previous + 1 not in starts:
            self._create(previous + 1)
        if combined:
            self._update(0, *self._entry(0))
        else:
            self._create(0)

    def _right(self, starts: list[int], around: tuple[Any, int] | None) -> None:
        """The record's own right window, where later records are there and it is not."""
        start = self._time + 1
        if around is None or around[1] <= self._time or start in starts:
            return
        self._write(start, *around, there=False)
        self._forward(start, around[0], None, around[1])

    def _starts(self, first: int) -> list[int]:
        """Starts of the key's windows from ``first`` to just behind the record, in order."""
        found: list[int] = []
        last = self._time + 1
        for segment in range(first // self._length * self._length, last + 1, self._length):
            prefix = bucket(segment, self._encoded)
            keys = self._folding.segments.bucket(prefix)
            low = bisect_left(keys, prefix + pack_time(first))
            high = bisect_left(keys, prefix + pack_time(last + 1), low)
            found += [unpack_time(key, len(prefix)) for key in keys[low:high]]
        return found

    def _at(self, start: int) -> tuple[bytes, bytes]:
        prefix = bucket(start // self._length * self._length, self._encoded)
        return prefix, prefix + pack_time(start)

    def _entry(self, start: int) -> tuple[Any, int]:
        # Read anew wherever it is needed: a fold may change the state that it is given.
        entry = self._get(self._at(start)[1])
        assert entry is not None, "a window in its bucket and not in the store"
        return entry

    def _update(self, start: int, state: Any, newest: int) -> None:
        if start + self._difference < self._closed:
            return
        old = self._folding.show(state)
        self._folded(start, state, old, max(newest, self._time), there=True)

    def _create(self, start: int, state: Any = None) -> None:
        if start + self._difference >= self._closed:
            self._folded(start, state, None, self._time, there=False)

    def _folded(self, start: int, state: Any, old: Any, newest: int, *, there: bool) -> None:
        try:
            state = self._fold(self._key, self._value, state)
            new = self._folding.show(state)
            self._write(start, state, newest, there=there)
        except OperatorFailed:
            raise
        except Exception as error:
            raise OperatorFailed(self._folding.name) from error
        self._forward(start, new, old, newest)

    def _write(self, start: int, state: Any, newest: int, *, there: bool) -> None:
        segments = self._folding.segments
        prefix, at = self._at(start)
        if state is None:
            if there:
                segments.delete(at)
                segments.remove(prefix, at)
                if self._closing:
                    segments.remove_from_index(start, self._encoded)
            return
        if not there:
            segments.created(at)
            segments.insert(prefix, at)
            if self._closing:
                segments.add_to_index(start, self._encoded)
        self._folding.store.put(at, state, newest)

    def _forward(self, start: int, new: Any, old: Any, newest: int) -> None:
        if not self._closing:
            self._folding.forward(Windowed(self._key, start, start + self._difference), new, old, newest)


def _closing(folding: Folding, windows: SlidingWindows) -> Close:
    segments, get, forward, show = folding.segments, folding.store.get, folding.forward, folding.show
    difference, delay = windows.difference_ms, windows.difference_ms + windows.grace_ms
    decode_key = folding.spec.key.deserialize
    assert folding.store.spec.segments is not None, "a windowed store without segments"
    length = folding.store.spec.segments.length_ms

    def close(before: int, now: int) -> None:
        first = None if before == NO_TIME else before - delay
        for start, encoded in segments.indexed(first, now - delay):
            entry = get(bucket(start // length * length, encoded) + pack_time(start))
            if entry is not None:
                forward(Windowed(decode_key(encoded), start, start + difference), show(entry[0]), None, entry[1])

    return close
