"""Aggregations per key and session.

Semantics are Kafka Streams': a record is merged with all sessions of its key that are at most the gap away; the
replaced ones are sent on as deletions before the merged one, which has the session's end as its timestamp. That holds
for a session that takes a record within its bounds too, unless it is no longer than the record itself. A session
that stream time has closed takes no records any more; a record that would have belonged to it starts a session of its
own if that is still open, and is late if not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from struct import Struct
from typing import Any

from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Forward
from streamstate.operators.windows.fold import Aggregator, Close, Folding, nothing_closes
from streamstate.state.window_index import NO_TIME
from streamstate.windows import SessionWindows, Windowed
from streamstate.windows.keys import BIAS, TIME_KEY, bucket, pack_time, pack_times, unpack_times

# (entry's key, its bucket, start, end)
Session = tuple[bytes, bytes, int, int]

_pack_prefix = Struct(">QI").pack
# A named tuple's own constructor is a function of Python's.
_tuple = tuple.__new__


def session_windows(folding: Folding) -> tuple[Callable[[Aggregator], Forward], Close]:
    """Sessions: entries in buckets by the time of their ends.

    Returns:
        What makes the entry of a parent from its aggregator, and what closes sessions.
    """
    windows, store, segments = folding.spec.windows, folding.store, folding.segments
    assert isinstance(windows, SessionWindows), "other windows have operators of their own"
    assert folding.spec.merger is not None, "sessions without a merger"
    assert store.spec.segments is not None, "a windowed store without segments"
    gap, grace, length = windows.gap_ms, windows.grace_ms, store.spec.segments.length_ms
    name, context, late, show = folding.name, folding.context, folding.late, folding.show
    clock, get, put, advance = segments.clock, store.get, store.put, segments.advance
    closed_ms = folding.closed_ms - gap
    buckets, read_bucket, serialize_key = segments.buckets, segments.bucket, folding.serialize_key
    changed, direct = folding.forward, folding.direct
    closing = folding.spec.emit == "close"
    # What nobody reads is not computed.
    needs_old = not closing and direct is None
    close = _closing_sessions(folding, gap, grace, length) if closing else nothing_closes
    merge, start_state = _merger(folding), folding.spec.initializer

    def found(encoded: bytes, first: int, last: int, now: int) -> list[Session]:
        """Sessions of the key with ``end >= first`` and ``start <= last``, in order."""
        sessions: list[Session] = []
        size = len(encoded)
        for segment in range(first - first % length, now + 1, length):
            prefix = _pack_prefix(segment + BIAS, size) + encoded
            keys = buckets.get(prefix)
            if keys is None:
                keys = read_bucket(prefix)
            if not keys:
                continue
            low = prefix + pack_time(first)
            if keys[-1] < low:
                continue
            at = size + 12
            for key in keys[bisect_left(keys, low) :]:
                end, start = unpack_times(key, at)
                if start > last:
                    return sessions
                sessions.append((key, prefix, start, end))
        return sessions

    def kept(session: Session) -> Any:
        entry = get(session[0])
        assert entry is not None, "a session in its bucket and not in the store"
        return entry[0]

    def delete(encoded: bytes, session: Session) -> None:
        at, prefix, start, end = session
        segments.delete(at)
        segments.remove(prefix, at)
        if closing:
            segments.remove_from_index(end, pack_time(start) + encoded)

    def write(encoded: bytes, start: int, end: int, state: Any) -> None:
        prefix = _pack_prefix(end - end % length + BIAS, len(encoded)) + encoded
        at = prefix + pack_times(end, start)
        segments.created(at)
        segments.insert(prefix, at)
        if closing:
            segments.add_to_index(end, pack_time(start) + encoded)
        put(at, state, end)

    def side(aggregator: Aggregator) -> Forward:
        aggregator = folding.on_copies(aggregator)

        def run(key: Any, value: Any, timestamp: int) -> None:
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
            closed = now - grace - gap
            if closed < closed_ms:
                closed = closed_ms
            first = timestamp - gap
            sessions = found(encoded, first if first > closed else closed, timestamp + gap, now)
            if not sessions and timestamp < closed:
                late(key, value, timestamp, closed - timestamp)
                return
            start = end = timestamp
            states = [kept(session) for session in sessions] if sessions else sessions
            try:
                shown = [show(other) for other in states] if needs_old else states
                state = None if start_state is None else start_state()
                for other in states:
                    state = merge(key, state, other)
                state = value if state is None and start_state is None else aggregator(key, value, state)
            except OperatorFailed:
                raise
            except Exception as error:
                raise OperatorFailed(name) from error
            same = replaces = False
            if sessions:
                start, end = min(timestamp, sessions[0][2]), max(timestamp, sessions[-1][3])
                same = len(sessions) == 1 and sessions[0][2:] == (start, end)
                replaces = start != end
                if not same or state is None:
                    for session in sessions:
                        delete(encoded, session)
            try:
                new = show(state)
                if state is not None:
                    if same:
                        put(sessions[0][0], state, end)
                    else:
                        write(encoded, start, end, state)
            except OperatorFailed:
                raise
            except Exception as error:
                raise OperatorFailed(name) from error
            if direct is not None:
                if replaces:
                    for session in sessions:
                        direct(_tuple(Windowed, (key, session[2], session[3])), None, session[3])
                direct(_tuple(Windowed, (key, start, end)), new, end)
            elif not closing:
                if replaces:
                    for session, old in zip(sessions, shown, strict=True):
                        changed(Windowed(key, session[2], session[3]), None, old, session[3])
                changed(Windowed(key, start, end), new, shown[0] if sessions and not replaces else None, end)
            if now != before:
                close(before, now)

        return run

    return side, close


def _merger(folding: Folding) -> Aggregator:
    """(key, state or None, state) to the state of both."""
    merger = folding.spec.merger
    assert merger is not None, "sessions without a merger"
    if folding.copied:
        merger = _on_copies(merger, folding.copy)
    if folding.spec.initializer is not None:
        return merger
    return lambda key, state, other: other if state is None else merger(key, state, other)


def _on_copies(merger: Aggregator, copy: Callable[[Any], Any]) -> Aggregator:
    return lambda key, state, other: merger(key, copy(state), copy(other))


def _closing_sessions(folding: Folding, gap: int, grace: int, length: int) -> Close:
    segments, get, due = folding.segments, folding.store.get, folding.due
    decode_key, closed_before = folding.spec.key.deserialize, folding.closed_before

    def close(before: int, now: int) -> None:
        first = None if before == NO_TIME else closed_before(before, grace) - gap
        for end, suffix in segments.indexed(first, closed_before(now, grace) - gap):
            start, encoded = unpack_times(pack_time(end) + suffix, 0)[1], suffix[8:]
            entry = get(bucket(end // length * length, encoded) + pack_times(end, start))
            if entry is not None:
                due(Windowed(decode_key(encoded), start, end), entry[0], None, end)

    return close
