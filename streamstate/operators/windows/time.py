"""Aggregations per key and time window: tumbling, hopping and unlimited ones.

Semantics are Kafka Streams', see ``windowed``. Each window is one entry, found by its start: which windows a record has
follows from its time, and is the same for all records of a stretch of time, a slot.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from struct import Struct
from typing import Any

from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Forward
from streamstate.operators.windows.fold import Aggregator, Close, Folding, nothing_closes
from streamstate.state.staging import ENTRY_BYTES, DecodedStore
from streamstate.state.undo import MISSING
from streamstate.state.window_index import NO_TIME
from streamstate.windows import FOREVER_MS, TimeWindows, UnlimitedWindows, Windowed
from streamstate.windows.keys import BIAS, TIME_KEY, pack_time, unpack_time

# (start, what the keys of its entries begin with) of each window of a slot.
Places = list[tuple[int, bytes]]

_pack = Struct(">Q").pack
# A named tuple's own constructor is a function of Python's.
_tuple = tuple.__new__


def time_windows(folding: Folding) -> tuple[Callable[[Aggregator], Forward], Close]:
    """Time windows and unlimited ones.

    Returns:
        What makes the entry of a parent from its aggregator, and what closes windows.
    """
    windows, store = folding.spec.windows, folding.store
    if isinstance(windows, UnlimitedWindows):
        return (lambda aggregator: _unlimited(folding, aggregator, windows)), nothing_closes
    assert isinstance(windows, TimeWindows), "other windows have operators of their own"
    close = _closing(folding, windows) if folding.spec.emit == "close" else nothing_closes
    if isinstance(store, DecodedStore) and store.undo is None:
        return (lambda aggregator: _decoded(folding, aggregator, windows, store, close)), close
    return (lambda aggregator: _any(folding, aggregator, windows, close)), close


def _slot(windows: TimeWindows) -> int:
    """How long a slot is."""
    return gcd(windows.size_ms, windows.advance_ms)


def _places(windows: TimeWindows, timestamp: int) -> Places:
    return [(start, _pack(start + BIAS)) for start in windows.starts(timestamp)]


def _any(folding: Folding, aggregator: Aggregator, windows: TimeWindows, close: Close) -> Forward:
    """Over any store."""
    size, grace, step = windows.size_ms, windows.grace_ms, _slot(windows)
    name, context, forward, late = folding.name, folding.context, folding.forward, folding.late
    segments, result, serialize_key = folding.segments, folding.result, folding.serialize_key
    clock, advance, get, put = segments.clock, segments.advance, folding.store.get, folding.store.put
    closing, note, fold = folding.spec.emit == "close", segments.noted.add, folding.fold(aggregator)
    closed_ms = folding.closed_ms
    slot, places = 0, _places(windows, 0)

    def run(key: Any, value: Any, timestamp: int) -> None:
        nonlocal slot, places
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (folding.spec.key, key)) from error
        before = now = clock[TIME_KEY]
        if timestamp > now:
            now = timestamp
            advance(timestamp)
        if not 0 <= timestamp - slot < step:
            slot, places = timestamp - timestamp % step, _places(windows, timestamp)
        closed = now - grace
        if closed < closed_ms:
            closed = closed_ms
        if places[-1][0] + size <= closed:
            late(key, value, timestamp, closed - places[-1][0] - size)
        for start, prefix in places:
            if start + size <= closed:
                continue
            at = prefix + encoded
            entry = get(at)
            try:
                if entry is None:
                    old, newest, state = None, timestamp, None
                    if closing:
                        note(at)
                else:
                    state, newest = entry
                    if timestamp > newest:
                        newest = timestamp
                    old = state if result is None else result(state)
                state = fold(key, value, state)
                put(at, state, newest)
                new = state if result is None or state is None else result(state)
            except Exception as error:
                raise OperatorFailed(name) from error
            if not closing:
                forward(Windowed(key, start, start + size), new, old, newest)
        if closing and now != before:
            close(before, now)

    return run


def _decoded(
    folding: Folding, aggregator: Aggregator, windows: TimeWindows, store: DecodedStore, close: Close
) -> Forward:
    """The same over a store of decoded values that nothing takes back, with its ``get`` and ``put`` written out. What
    a stream of every update does not read is not computed."""
    size, grace, step = windows.size_ms, windows.grace_ms, _slot(windows)
    name, context, forward, late = folding.name, folding.context, folding.forward, folding.late
    segments, result, serialize_key = folding.segments, folding.result, folding.serialize_key
    initializer, closing, note = folding.spec.initializer, folding.spec.emit == "close", segments.noted.add
    clock, staged, load, put = segments.clock, store.staged, store.load, store.put
    closed_ms = folding.closed_ms
    lookup = staged.get
    direct = folding.direct
    silent = closing or direct is not None
    slot, places = 0, _places(windows, 0)

    def run(key: Any, value: Any, timestamp: int) -> None:
        nonlocal slot, places
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (folding.spec.key, key)) from error
        before = now = clock[TIME_KEY]
        if timestamp > now:
            clock[TIME_KEY] = now = timestamp
        if not 0 <= timestamp - slot < step:
            slot, places = timestamp - timestamp % step, _places(windows, timestamp)
        taking = places
        closed = now - grace
        if closed < closed_ms:
            closed = closed_ms
        if taking[0][0] + size <= closed:
            taking = [place for place in taking if place[0] + size > closed]
            if not taking:
                late(key, value, timestamp, closed - places[-1][0] - size)
        for start, prefix in taking:
            at = prefix + encoded
            entry = lookup(at, MISSING)
            is_staged = entry is not MISSING
            if not is_staged:
                entry = load(at)
            old = None
            try:
                if entry is None:
                    newest = timestamp
                    state = value if initializer is None else aggregator(key, value, initializer())
                    if closing:
                        note(at)
                else:
                    state, newest = entry
                    if timestamp > newest:
                        newest = timestamp
                    if not silent:
                        old = state if result is None else result(state)
                    state = aggregator(key, value, state)
                if type(state) is store.plain_kind:
                    staged[at] = (state, newest)
                    if not is_staged:
                        store.staged_bytes += ENTRY_BYTES + len(at)
                else:
                    put(at, state, newest)
                if closing:
                    continue
                new = state if result is None or state is None else result(state)
            except Exception as error:
                raise OperatorFailed(name) from error
            windowed = _tuple(Windowed, (key, start, start + size))
            if direct is None:
                forward(windowed, new, old, newest)
            else:
                direct(windowed, new, newest)
        if closing and now != before:
            close(before, now)

    return run


def _unlimited(folding: Folding, aggregator: Aggregator, windows: UnlimitedWindows) -> Forward:
    """One window, which never closes."""
    name, context, forward, late = folding.name, folding.context, folding.forward, folding.late
    segments, show, get, put = folding.segments, folding.show, folding.store.get, folding.store.put
    first, fold, clock = windows.start_ms, folding.fold(aggregator), segments.clock
    prefix = _pack(first + BIAS)

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        encoded = folding.encoded(key)
        if timestamp > clock[TIME_KEY]:
            segments.advance(timestamp)
        if timestamp < first:
            late(key, value, timestamp, 0)
            return
        at = prefix + encoded
        entry = get(at)
        state, newest = (None, timestamp) if entry is None else entry
        old = show(state)
        try:
            state = fold(key, value, state)
            put(at, state, max(newest, timestamp))
        except OperatorFailed:
            raise
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(Windowed(key, first, FOREVER_MS), show(state), old, max(newest, timestamp))

    return run


def _closing(folding: Folding, windows: TimeWindows) -> Close:
    size, advance, grace = windows.size_ms, windows.advance_ms, windows.grace_ms
    store, due = folding.store, folding.due
    decode_key, closed_before = folding.spec.key.deserialize, folding.closed_before

    def close(before: int, now: int) -> None:
        last = closed_before(now, grace) - size
        first = 0 if before == NO_TIME else max(0, closed_before(before, grace) - size + 1)
        first = -(-first // advance) * advance
        if first > last:
            return
        # All of them before the first is sent on: what follows may take its time.
        for at, (state, newest) in list(store.between(pack_time(first), pack_time(last + 1))):
            start = unpack_time(at)
            due(Windowed(decode_key(at[8:]), start, start + size), state, None, newest)

    return close
