"""What aggregations over all kinds of windows share, and those over time windows.

Semantics are Kafka Streams': a window takes records until the highest time seen here is past its end and grace, a
result's timestamp is the greatest of its records', and records that are late for all their windows are left out and
counted. The time seen is the operator's own: what was filtered away before it does not count. It is kept with the
store, so that what was late stays late after a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from streamstate.operators.aggregate import Change
from streamstate.operators.context import OperatorFailed, RecordWithHeaders, TaskContext
from streamstate.operators.stateless import Forward
from streamstate.state import NO_TIME, Segments, StagedStore
from streamstate.topology.window_specs import Aggregator, WindowedAggregate
from streamstate.window_keys import BIAS, TIME_KEY, pack_time, unpack_time
from streamstate.windows import FOREVER_MS, TimeWindows, UnlimitedWindows, Windowed

# (key, value, timestamp, by how much it is late in ms)
Late = Callable[[Any, Any, int, int], None]
# The highest time seen went from the first to the second: send on what has closed.
Close = Callable[[int, int], None]

_pack = Struct(">Q").pack


def nothing_closes(before: int, now: int) -> None:
    """For windows that send each update."""


def late_records(sink: Forward | None, context: TaskContext) -> Late:
    """What happens to late records: they are counted, and go to ``sink`` if there is one."""

    def count(key: Any, value: Any, timestamp: int, late_ms: int) -> None:
        context.dropped += 1
        context.late += 1

    if sink is None:
        return count

    def divert(key: Any, value: Any, timestamp: int, late_ms: int) -> None:
        context.late += 1
        record = context.record
        headers = [] if record is None else list(record.headers() or ())
        headers.append(("streamstate.late_ms", b"%d" % late_ms))
        context.record = RecordWithHeaders(record, headers)
        try:
            sink(key, value, timestamp)
        finally:
            context.record = record

    return divert


class Folding:
    """One windowed aggregation in one task, whatever its windows are.

    Attributes:
        name: of the node.
        spec: of the node.
        store: its windows.
        segments: of the store.
        context: the task's.
        forward: takes the changes.
        late: takes late records.
        serialize_key: of the key itself.
        result: what the table shows of a state that is not None.
    """

    def __init__(
        self,
        name: str,
        spec: WindowedAggregate,
        store: StagedStore,
        context: TaskContext,
        forward: Change,
        late: Late,
    ) -> None:
        segments = store.segments
        assert segments is not None, "a windowed store without segments"
        self.name = name
        self.spec = spec
        self.store = store
        self.segments: Segments = segments
        self.context = context
        self.forward = forward
        self.late = late
        self.serialize_key = spec.key.serialize
        self.result = spec.result

    def fold(self, aggregator: Aggregator) -> Aggregator:
        """(key, value, state or None) to the next state."""
        initializer = self.spec.initializer
        if initializer is None:
            return lambda key, value, state: value if state is None else aggregator(key, value, state)
        return lambda key, value, state: aggregator(key, value, initializer() if state is None else state)

    def show(self, state: Any) -> Any:
        """What the table shows of a state."""
        if state is None or self.result is None:
            return state
        try:
            return self.result(state)
        except Exception as error:
            raise OperatorFailed(self.name) from error

    def encoded(self, key: Any) -> bytes:
        """The key's bytes."""
        try:
            return self.serialize_key(key)
        except Exception as error:
            raise OperatorFailed(self.name, "encoding the key") from error

    def goes_idle(self, idle_ms: int, close: Close) -> Callable[[], None]:
        """Let the windows of an idle partition close by the wall clock.

        Returns:
            What every record has to call.
        """
        context, clock = self.context, self.segments.clock
        # What was so when the last record came, as far as one knows: the wall clock and the stream time.
        seen, idle_since, base = False, context.now_ms(), clock[TIME_KEY]

        def record_came() -> None:
            nonlocal seen
            seen = True

        def check(now_ms: int) -> None:
            nonlocal seen, idle_since, base
            if seen or clock[TIME_KEY] == NO_TIME:
                seen, idle_since, base = False, now_ms, clock[TIME_KEY]
                return
            before, now = clock[TIME_KEY], base + now_ms - idle_since
            if now > before:
                context.record = None
                self.segments.advance(now)
                close(before, now)

        context.schedules.add(idle_ms, True, check, context.now_ms(), context.stream_time)
        return record_came


def time_windows(folding: Folding) -> tuple[Callable[[Aggregator], Forward], Close]:
    """Tumbling, hopping and unlimited windows: each is one entry, found by its start.

    Returns:
        What makes the entry of a parent from its aggregator, and what closes windows.
    """
    windows = folding.spec.windows
    assert isinstance(windows, TimeWindows | UnlimitedWindows), "other windows have operators of their own"
    size, grace = (windows.size_ms, windows.grace_ms) if isinstance(windows, TimeWindows) else (None, 0)
    name, context, forward, late = folding.name, folding.context, folding.forward, folding.late
    store, segments, result = folding.store, folding.segments, folding.result
    serialize_key, starts = folding.serialize_key, windows.starts
    clock, advance, get, put = segments.clock, segments.advance, store.get, store.put
    closing = folding.spec.emit == "close"
    close = _closing_time_windows(folding, windows) if closing and isinstance(windows, TimeWindows) else nothing_closes
    note = segments.noted.add

    def side(aggregator: Aggregator) -> Forward:
        fold = folding.fold(aggregator)
        if isinstance(windows, TimeWindows) and windows.advance_ms == windows.size_ms and not closing:
            return _tumbling(folding, fold, windows)

        def run(key: Any, value: Any, timestamp: int) -> None:
            if key is None or value is None:
                context.dropped += 1
                return
            try:
                encoded = serialize_key(key)
            except Exception as error:
                raise OperatorFailed(name, "encoding the key") from error
            before = now = clock[TIME_KEY]
            if timestamp > now:
                now = timestamp
                advance(timestamp)
            closed = now - grace
            end = FOREVER_MS
            taken = False
            for start in starts(timestamp):
                if size is not None:
                    end = start + size
                    if end <= closed:
                        continue
                taken = True
                at = _pack(start + BIAS) + encoded
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
                    forward(Windowed(key, start, end), new, old, newest)
            if not taken:
                late(key, value, timestamp, 0 if size is None else closed - end)
            if now != before:
                close(before, now)

        return run

    return side, close


def _tumbling(folding: Folding, fold: Aggregator, windows: TimeWindows) -> Forward:
    """The same for the one window that a record has, when every update is sent."""
    size, grace = windows.size_ms, windows.grace_ms
    name, context, forward, late = folding.name, folding.context, folding.forward, folding.late
    segments, result, serialize_key = folding.segments, folding.result, folding.serialize_key
    clock, advance, get, put = segments.clock, segments.advance, folding.store.get, folding.store.put
    start, prefix = 0, _pack(BIAS)

    def run(key: Any, value: Any, timestamp: int) -> None:
        nonlocal start, prefix
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise OperatorFailed(name, "encoding the key") from error
        if timestamp > clock[TIME_KEY]:
            advance(timestamp)
        if not 0 <= timestamp - start < size:
            start = timestamp - timestamp % size
            prefix = _pack(start + BIAS)
        if start + size <= clock[TIME_KEY] - grace:
            late(key, value, timestamp, clock[TIME_KEY] - grace - start - size)
            return
        at = prefix + encoded
        entry = get(at)
        try:
            if entry is None:
                old, newest, state = None, timestamp, None
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
        forward(Windowed(key, start, start + size), new, old, newest)

    return run


def _closing_time_windows(folding: Folding, windows: TimeWindows) -> Close:
    size, advance, grace = windows.size_ms, windows.advance_ms, windows.grace_ms
    store, forward, show = folding.store, folding.forward, folding.show
    decode_key = folding.spec.key.deserialize

    def close(before: int, now: int) -> None:
        last = now - grace - size
        first = 0 if before == NO_TIME else max(0, before - grace - size + 1)
        first = -(-first // advance) * advance
        if first > last:
            return
        # All of them before the first is sent on: what follows may take its time, and fails for the record in hand.
        for at, (state, newest) in list(store.between(pack_time(first), pack_time(last + 1))):
            start = unpack_time(at)
            forward(Windowed(decode_key(at[8:]), start, start + size), show(state), None, newest)

    return close
