"""What aggregations over all kinds of windows share.

Semantics are Kafka Streams': a window takes records until the highest time seen here is past its end and grace, a
result's timestamp is the greatest of its records', and records that are late for all their windows are left out and
counted. The time seen is the operator's own: what was filtered away before it does not count. It is kept with the
store, so that what was late stays late after a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamstate.graph.error_policy import FAIL, ErrorPolicy
from streamstate.operators.base.context import RecordWithHeaders, TaskContext
from streamstate.operators.base.due_results import each_by_itself
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Change, Forward
from streamstate.state.staging import StagedStore
from streamstate.state.window_index import NO_TIME, WindowIndex
from streamstate.windows.keys import TIME_KEY

if TYPE_CHECKING:
    from streamstate.operators.windows.spec import WindowedAggregate

# (key, value, timestamp, by how much it is late in ms)
Aggregator = Callable[[Any, Any, Any], Any]
LateRecords = Callable[[Any, Any, int, int], None]
# The highest time seen went from the first to the second: send on what has closed.
Close = Callable[[int, int], None]


def nothing_closes(before: int, now: int) -> None:
    """For windows that send each update."""


def late_records(sink: Forward | None, context: TaskContext) -> LateRecords:
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
        due: takes a window that has closed: its key, its state, None and the timestamp.
        direct: takes the new values, where nothing reads the old ones and each update is sent; else None.
        late: takes late records.
        copied: a state is copied before the user's functions get it, which may change it in place, because something
            compares the old result with the new one.
        serialize_key: of the key itself.
        closed_ms, closed_before: as in ``SegmentSpec``.
        result: what the table shows of a state that is not None.
    """

    def __init__(
        self,
        name: str,
        spec: WindowedAggregate,
        store: StagedStore,
        context: TaskContext,
        forward: Change,
        late: LateRecords,
        *,
        on_error: ErrorPolicy = FAIL,
        needs_old: bool = False,
    ) -> None:
        segments = store.segments
        assert segments is not None, "a windowed store without segments"
        self.name = name
        self.spec = spec
        self.store = store
        self.segments: WindowIndex = segments
        self.context = context
        self.forward = forward
        self.direct: Forward | None = None if spec.emit == "close" else getattr(forward, "stream", None)
        self.late = late
        self.copied = needs_old and not store.spec.value.immutable and spec.result is None
        self.serialize_key = spec.key.serialize
        assert store.spec.segments is not None, "a windowed store without segments"
        self.closed_ms = store.spec.segments.closed_ms
        self.closed_before = store.spec.segments.closed_before
        self.result = spec.result
        send = forward if spec.result is None else self._send
        self.due: Change = each_by_itself(send, store.spec.key.serialize, context, store.undo, on_error)

    def _send(self, key: Any, state: Any, old: Any, timestamp: int) -> None:
        self.forward(key, self.show(state), old, timestamp)

    def fold(self, aggregator: Aggregator) -> Aggregator:
        """(key, value, state or None) to the next state."""
        aggregator = self.on_copies(aggregator)
        initializer = self.spec.initializer
        if initializer is None:
            return lambda key, value, state: value if state is None else aggregator(key, value, state)
        return lambda key, value, state: aggregator(key, value, initializer() if state is None else state)

    def on_copies(self, function: Aggregator) -> Aggregator:
        """(key, value, state) to what ``function`` makes of them, which may not reach the state itself."""
        if not self.copied:
            return function
        copy = self.copy
        return lambda key, value, state: function(key, value, copy(state))

    def copy(self, state: Any) -> Any:
        """The same state, held by nobody else."""
        serde = self.store.spec.value
        return None if state is None else serde.deserialize(serde.serialize(state))

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
            raise not_encoded(self.name, "encoding the key", (self.spec.key, key)) from error

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
