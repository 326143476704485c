"""Aggregations per key and time window.

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
from streamstate.operators.context import OperatorFailed, TaskContext
from streamstate.operators.stateless import Forward
from streamstate.state import StagedStore
from streamstate.topology import specs
from streamstate.window_keys import BIAS, TIME_KEY
from streamstate.windows import FOREVER_MS, TimeWindows, UnlimitedWindows, Windowed

# (key, value, timestamp, by how much it is late in ms)
Late = Callable[[Any, Any, int, int], None]

_pack = Struct(">Q").pack


def folded(spec: specs.WindowedAggregate) -> Callable[[Any, Any, Any], Any]:
    """The fold of an aggregation: (key, value, state or None) to the next state."""
    initializer, aggregator = spec.initializer, spec.aggregator
    if initializer is None:
        return lambda key, value, state: value if state is None else aggregator(key, value, state)
    return lambda key, value, state: aggregator(key, value, initializer() if state is None else state)


def late_records(name: str, sink: Forward | None, context: TaskContext) -> Late:
    """What happens to late records."""

    def count(key: Any, value: Any, timestamp: int, late_ms: int) -> None:
        context.dropped += 1
        context.late += 1

    return count


def time_windows(
    name: str,
    spec: specs.WindowedAggregate,
    store: StagedStore,
    context: TaskContext,
    forward: Change,
    late: Late,
) -> Forward:
    """Tumbling, hopping and unlimited windows: each is one entry, found by its start."""
    windows = spec.windows
    assert isinstance(windows, TimeWindows | UnlimitedWindows), "other windows have operators of their own"
    size, grace = (windows.size_ms, windows.grace_ms) if isinstance(windows, TimeWindows) else (None, 0)
    segments = store.segments
    assert segments is not None, "a windowed store without segments"
    clock, advance, starts = segments.clock, segments.advance, windows.starts
    serialize_key, fold, result = spec.key.serialize, folded(spec), spec.result
    get, put = store.get, store.put
    every_update = spec.emit != "close"

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise OperatorFailed(name, "encoding the key") from error
        if timestamp > clock[TIME_KEY]:
            advance(timestamp)
        closed = clock[TIME_KEY] - grace
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
            if every_update:
                forward(Windowed(key, start, end), new, old, newest)
        if not taken:
            late(key, value, timestamp, closed - end if size is not None else 0)

    return run
