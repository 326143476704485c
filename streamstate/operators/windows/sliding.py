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
from struct import Struct
from typing import Any

from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.base.forwarding import Forward
from streamstate.operators.windows.fold import Aggregator, Close, Folding, nothing_closes
from streamstate.state.window_index import NO_TIME
from streamstate.windows import SlidingWindows, Windowed
from streamstate.windows.keys import BIAS, TIME_KEY, bucket, pack_time, unpack_time

# By start, in order: the keys of a record's windows.
Found = dict[int, bytes]

_pack_prefix = Struct(">QI").pack
# A named tuple's own constructor is a function of Python's.
_tuple = tuple.__new__


def sliding_windows(folding: Folding) -> tuple[Callable[[Aggregator], Forward], Close]:
    """Sliding windows: entries in buckets by the time of their starts.

    Returns:
        What makes the entry of a parent from its aggregator, and what closes windows.
    """
    windows = folding.spec.windows
    assert isinstance(windows, SlidingWindows), "other windows have operators of their own"
    segments, context, late = folding.segments, folding.context, folding.late
    clock, difference, grace = segments.clock, windows.difference_ms, windows.grace_ms
    closed_ms = folding.closed_ms
    close = _closing(folding, windows) if folding.spec.emit == "close" else nothing_closes

    def side(aggregator: Aggregator) -> Forward:
        sliding = _Sliding(folding, folding.fold(aggregator), difference)

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
            if closed < closed_ms:
                closed = closed_ms
            if timestamp + difference < closed:
                late(key, value, timestamp, closed - timestamp - difference)
                return
            # Windows that start earlier take nothing any more.
            sliding.first_open = closed - difference
            if timestamp < difference:
                sliding.take_early(key, value, timestamp, encoded)
            else:
                sliding.take(key, value, timestamp, encoded)
            if now != before:
                close(before, now)

        return run

    return side, close


class _Sliding:
    """Takes a record into the windows around it.

    Attributes:
        first_open: windows that start earlier are closed.
    """

    __slots__ = ("_buckets", "_closing", "_difference", "_direct", "_fold", "_folding", "_get", "_length", "_put",
                 "_segments", "_show", "first_open")  # fmt: skip

    def __init__(self, folding: Folding, fold: Aggregator, difference: int) -> None:
        assert folding.store.spec.segments is not None, "a windowed store without segments"
        self.first_open = 0
        self._folding = folding
        self._fold = fold
        self._difference = difference
        self._closing = folding.spec.emit == "close"
        self._direct = folding.direct
        self._show = folding.show
        self._length = folding.store.spec.segments.length_ms
        self._get, self._put = folding.store.get, folding.store.put
        self._segments, self._buckets = folding.segments, folding.segments.buckets

    def take(self, key: Any, value: Any, time: int, encoded: bytes) -> None:
        """A record whose left window starts in 1970 or later."""
        difference = self._difference
        found = self._found(encoded, max(0, time - 2 * difference), time + 1)
        # The last window that holds the record's time, if it holds later records; and the last one that ends before it.
        around: tuple[Any, int] | None = None
        previous: int | None = None
        left: bytes | None = None
        has_left = is_last = False
        for start in reversed(found):
            if start > time:
                continue
            at = found[start]
            state, newest = self._entry(at)
            end = start + difference
            if end > time:
                if not is_last:
                    is_last = True
                    if newest > time:
                        # Read anew: a fold may change the state that it is given.
                        around = self._entry(at)
                self._update(key, value, encoded, start, at, state, newest if newest > time else time)
            elif end == time:
                has_left = True
                self._update(key, value, encoded, start, at, state, newest if newest > time else time)
                if newest >= time:
                    # A record of the same time has made all there is to make.
                    return
                previous = newest
            else:
                left, previous = at, newest
                break
        if previous is not None and previous + 1 not in found and previous + 1 + difference >= time:
            self._create(key, value, encoded, previous + 1, None, time)
        if not has_left:
            state = None
            if previous is not None and time - difference <= previous:
                assert left is not None, "a record before this one, but no window of it"
                state = self._entry(left)[0]
            self._create(key, value, encoded, time - difference, state, time)
        if around is not None and time + 1 not in found:
            self._right(key, encoded, time + 1, around)

    def take_early(self, key: Any, value: Any, time: int, encoded: bytes) -> None:
        """A record whose left window would start before 1970."""
        found = self._found(encoded, 0, time + 1)
        around: tuple[Any, int] | None = None
        previous: int | None = None
        for start, at in found.items():
            if start == 0:
                newest = self._entry(at)[1]
                if newest < time:
                    previous = newest
            elif start <= time:
                around = self._entry(at)
                state, newest = self._entry(at)
                self._update(key, value, encoded, start, at, state, max(newest, time))
        combined = found.get(0)
        if combined is not None and around is None and self._entry(combined)[1] > time:
            around = self._entry(combined)
        if around is not None and around[1] > time and time + 1 not in found:
            self._right(key, encoded, time + 1, around)
        if previous is not None and previous + 1 not in found:
            self._create(key, value, encoded, previous + 1, None, time)
        if combined is not None:
            state, newest = self._entry(combined)
            self._update(key, value, encoded, 0, combined, state, max(newest, time))
        else:
            self._create(key, value, encoded, 0, None, time)

    def _found(self, encoded: bytes, first: int, last: int) -> Found:
        """The key's windows that start from ``first`` to ``last``, in order."""
        found: Found = {}
        length, size = self._length, len(encoded)
        for segment in range(first - first % length, last + 1, length):
            prefix = _pack_prefix(segment + BIAS, size) + encoded
            keys = self._buckets.get(prefix)
            if keys is None:
                keys = self._segments.bucket(prefix)
            if keys:
                low = bisect_left(keys, prefix + pack_time(first))
                for at in keys[low : bisect_left(keys, prefix + pack_time(last + 1), low)]:
                    found[unpack_time(at, size + 12)] = at
        return found

    def _entry(self, at: bytes) -> tuple[Any, int]:
        entry = self._get(at)
        assert entry is not None, "a window in its bucket and not in the store"
        return entry

    def _update(self, key: Any, value: Any, encoded: bytes, start: int, at: bytes, state: Any, newest: int) -> None:
        if start < self.first_open:
            return
        old = self._show(state) if self._direct is None and not self._closing else None
        try:
            state = self._fold(key, value, state)
            new = self._show(state)
            if state is None:
                self._delete(encoded, start, at)
            else:
                self._put(at, state, newest)
        except OperatorFailed:
            raise
        except Exception as error:
            raise OperatorFailed(self._folding.name) from error
        self._forward(key, start, new, old, newest)

    def _create(self, key: Any, value: Any, encoded: bytes, start: int, state: Any, newest: int) -> None:
        if start < self.first_open:
            return
        try:
            state = self._fold(key, value, state)
            new = self._show(state)
            self._write(encoded, start, state, newest)
        except OperatorFailed:
            raise
        except Exception as error:
            raise OperatorFailed(self._folding.name) from error
        self._forward(key, start, new, None, newest)

    def _right(self, key: Any, encoded: bytes, start: int, around: tuple[Any, int]) -> None:
        """The record's own right window, with the later records."""
        state, newest = around
        self._write(encoded, start, state, newest)
        self._forward(key, start, self._show(state), None, newest)

    def _delete(self, encoded: bytes, start: int, at: bytes) -> None:
        self._segments.delete(at)
        self._segments.remove(at[:-8], at)
        if self._closing:
            self._segments.remove_from_index(start, encoded)

    def _write(self, encoded: bytes, start: int, state: Any, newest: int) -> None:
        """A window that is not there."""
        if state is None:
            return
        prefix = _pack_prefix(start - start % self._length + BIAS, len(encoded)) + encoded
        at = prefix + pack_time(start)
        self._segments.created(at)
        self._segments.insert(prefix, at)
        if self._closing:
            self._segments.add_to_index(start, encoded)
        self._put(at, state, newest)

    def _forward(self, key: Any, start: int, new: Any, old: Any, newest: int) -> None:
        if self._direct is not None:
            self._direct(_tuple(Windowed, (key, start, start + self._difference)), new, newest)
        elif not self._closing:
            self._folding.forward(Windowed(key, start, start + self._difference), new, old, newest)


def _closing(folding: Folding, windows: SlidingWindows) -> Close:
    segments, get, due = folding.segments, folding.store.get, folding.due
    difference, grace = windows.difference_ms, windows.grace_ms
    decode_key, closed_before = folding.spec.key.deserialize, folding.closed_before
    assert folding.store.spec.segments is not None, "a windowed store without segments"
    length = folding.store.spec.segments.length_ms

    def close(before: int, now: int) -> None:
        first = None if before == NO_TIME else closed_before(before, grace) - difference
        for start, encoded in segments.indexed(first, closed_before(now, grace) - difference):
            entry = get(bucket(start // length * length, encoded) + pack_time(start))
            if entry is not None:
                due(Windowed(decode_key(encoded), start, start + difference), entry[0], None, entry[1])

    return close
