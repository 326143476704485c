"""Compile functions of windowed aggregations, of what holds their results back, and of joins of streams."""

from __future__ import annotations

from streamstate.operators import stateless
from streamstate.operators.aggregate import Change, ChangesPerCommit, stamped
from streamstate.operators.compilation import Compilation, CompileFunction, policy_behind
from streamstate.operators.compile_rows import needs_old, suppressor
from streamstate.operators.session import session_windows
from streamstate.operators.sliding import sliding_windows
from streamstate.operators.stateless import Forward
from streamstate.operators.stream_join import TimedRecords, Waiting, inner_join, self_join, stream_join
from streamstate.operators.time_windows import time_windows
from streamstate.operators.windowed import Folding, Late, late_records
from streamstate.topology import specs, window_specs
from streamstate.windows import SessionWindows, SlidingWindows


def _windowed_aggregate(made: Compilation, node: specs.Node, spec: window_specs.WindowedAggregate) -> None:
    store = made.stores[spec.store]
    sink = None
    if spec.late is not None:
        late = specs.Sink(spec.late.topic, spec.late.key, spec.late.value)
        sink = stateless.sink(node.name, late, spec.late.topic, made.context, measured=made.undo is not None)
    forward: Change = made.change(node)
    if spec.emit == "commit":
        emitter = ChangesPerCommit(store.spec.key.serialize, forward, made.undo, policy_behind(made.graph, node.name))
        made.task.commit_emitters.append(emitter)
        forward = emitter.change
    late_to = late_records(sink, made.context)
    if spec.timed:
        late_to = _without_time(late_to)
    asked = needs_old(made.graph, node.name)
    folding = Folding(node.name, spec, store, made.context, forward, late_to, needs_old=asked)
    if isinstance(spec.windows, SessionWindows):
        side, close = session_windows(folding)
    elif isinstance(spec.windows, SlidingWindows):
        side, close = sliding_windows(folding)
    else:
        side, close = time_windows(folding)
    record_came = None if spec.idle_ms is None else folding.goes_idle(spec.idle_ms, close)
    for parent, aggregator in zip(node.parents, spec.aggregators, strict=True):
        entry = stamped(side(aggregator)) if spec.timed else side(aggregator)
        if record_came is not None:
            entry = stateless.fan_out([_noticed(record_came), entry])
        made.sides[node.name, parent] = entry


def _without_time(late: Late) -> Late:
    def run(key: object, pair: tuple[object, int], timestamp: int, late_ms: int) -> None:
        late(key, pair[0], timestamp, late_ms)

    return run


def _noticed(record_came: object) -> Forward:
    assert callable(record_came)

    def notice(key: object, value: object, timestamp: int) -> None:
        record_came()

    return notice


def _suppress(made: Compilation, node: specs.Node, spec: window_specs.Suppress) -> None:
    operator = suppressor(made, node, spec)
    operator.forward = made.change(node)
    made.task.processors.append(operator)
    made.tables[node.name] = operator.change


def _stream_join(made: Compilation, node: specs.Node, spec: window_specs.StreamJoin) -> None:
    name, context, forward = node.name, made.context, made.forward(node)
    records = [TimedRecords(made.stores[store]) for store in spec.stores[:2]]
    if len(records) == 1:
        made.streams[name] = self_join(name, spec, records[0], context, forward)
        return
    waiting = None
    if len(spec.stores) == 3:
        waiting = Waiting(name, spec, made.stores[spec.stores[2]], context, forward)
        made.task.processors.append(waiting)
    left, right = records
    if waiting is None and spec.left != spec.right and not left.undoing and left.length_ms == right.length_ms:
        made.sides[name, spec.left] = inner_join(name, spec, left, right, context, forward, left=True)
        made.sides[name, spec.right] = inner_join(name, spec, right, left, context, forward, left=False)
        return
    from_left = stream_join(name, spec, left, right, waiting, context, forward, left=True)
    from_right = stream_join(name, spec, right, left, waiting, context, forward, left=False)
    if spec.left == spec.right:
        made.streams[name] = stateless.fan_out([from_left, from_right])
        return
    made.sides[name, spec.left] = from_left
    made.sides[name, spec.right] = from_right


WINDOWS: dict[type, CompileFunction] = {
    window_specs.WindowedAggregate: _windowed_aggregate,
    window_specs.Suppress: _suppress,
    window_specs.StreamJoin: _stream_join,
}
