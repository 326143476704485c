"""Aggregations of a stream per key and window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from streamstate.graph.emit import WindowEmit
from streamstate.graph.node import Graph, Node
from streamstate.graph.queries import policy_behind
from streamstate.graph.spec import Facts
from streamstate.operators.base.commit_results import ChangesPerCommit
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.describing import grace_is_default, with_grace
from streamstate.operators.base.forwarding import Change, Forward, fan_out, stamped
from streamstate.operators.base.rows import Getter, rows_in
from streamstate.operators.base.tables import KeptTable, needs_old
from streamstate.operators.topics.sink import sink
from streamstate.operators.topics.spec import Sink
from streamstate.operators.windows.fold import Aggregator, Folding, LateRecords, late_records
from streamstate.operators.windows.session import session_windows
from streamstate.operators.windows.sliding import sliding_windows
from streamstate.operators.windows.time import time_windows
from streamstate.serde import Serde
from streamstate.windows import SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows

__all__ = ["Late", "WindowedAggregate", "Windows"]

Windows = TimeWindows | UnlimitedWindows | SlidingWindows | SessionWindows


@dataclass(frozen=True, slots=True)
class Late:
    """Where records go that are too late for all their windows, within the same transaction."""

    topic: str
    key: Serde[Any]
    value: Serde[Any]


@dataclass(frozen=True, slots=True)
class WindowedAggregate(KeptTable):
    """Folds (key, value, aggregate) per key and window. Emits table changes, by ``Windowed`` keys.

    Attributes:
        kind: what it is called.
        initializer: None: the first value is the start.
        aggregators: (key, value, aggregate) to the next aggregate, one for each parent.
        merger: (key, aggregate, aggregate) to that of both; for sessions only.
        result: what the table shows of the stored aggregate; None: the aggregate itself.
        key: serde of the key itself, without its window.
        emit: each update, only the last when its window closes, or the newest at each commit.
        late: None: late records are counted and dropped.
        timed: aggregators take (key, (value, event time), aggregate).
        idle_ms: after so long (wall clock) without a record, stream time goes on with the wall clock; None: never.
    """

    kind: Literal["count", "reduce", "aggregate", "cogroup"]
    store: str
    windows: Windows
    initializer: Callable[[], Any] | None
    aggregators: tuple[Aggregator, ...]
    merger: Aggregator | None
    result: Callable[[Any], Any] | None
    key: Serde[Any]
    emit: WindowEmit = "update"
    late: Late | None = None
    idle_ms: int | None = None
    timed: bool = False

    @property
    def operator(self) -> str:
        """Such as ``windowed_count``."""
        return f"windowed_{self.kind}"

    @property
    def output_topics(self) -> tuple[str, ...]:
        """That of late records, if they have one."""
        return () if self.late is None else (self.late.topic,)

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """The windows, and what is sent when."""
        return {
            "windows": {"kind": _kind(self.windows), **asdict(self.windows)},
            "grace_is_default": grace_is_default(self.windows),
            "emit": self.emit,
            "late": None if self.late is None else self.late.topic,
            "idle_ms": self.idle_ms,
        }

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same."""
        fields = dict(facts["windows"])
        kind = fields.pop("kind")
        parts = [self.operator, f"{kind} windows " + with_grace(fields, default=facts["grace_is_default"])]
        if self.late is not None:
            parts.append(f"late records to {self.late.topic}")
        if self.idle_ms is not None:
            parts.append(f"idle after {self.idle_ms} ms")
        return [*parts, f"emit {self.emit}"]

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """From its store, as the table shows them."""
        return rows_in(asked_by, compilation.stores[self.store], self.result)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """An entry for each parent, by the kind of windows."""
        context, store = compilation.context, compilation.stores[self.store]
        late_sink = None
        if self.late is not None:
            spec = Sink(self.late.topic, self.late.key, self.late.value)
            late_sink = sink(node.name, spec, self.late.topic, context, measured=compilation.undo is not None)
        forward: Change = compilation.change(node)
        policy = policy_behind(compilation.graph, node.name)
        if self.emit == "commit":
            emitter = ChangesPerCommit(store.spec.key.serialize, forward, compilation.undo, policy)
            compilation.task.commit_emitters.append(emitter)
            forward = emitter.change
        late = late_records(late_sink, context)
        if self.timed:
            late = _without_time(late)
        asked = needs_old(compilation.graph, node.name)
        folding = Folding(node.name, self, store, context, forward, late, on_error=policy, needs_old=asked)
        if isinstance(self.windows, SessionWindows):
            side, close = session_windows(folding)
        elif isinstance(self.windows, SlidingWindows):
            side, close = sliding_windows(folding)
        else:
            side, close = time_windows(folding)
        record_came = None if self.idle_ms is None else folding.goes_idle(self.idle_ms, close)
        for parent, aggregator in zip(node.parents, self.aggregators, strict=True):
            entry = stamped(side(aggregator)) if self.timed else side(aggregator)
            if record_came is not None:
                entry = fan_out([_noticed(record_came), entry])
            compilation.sides[node.name, parent] = entry


def _kind(windows: Windows) -> str:
    if isinstance(windows, TimeWindows):
        return "tumbling" if windows.size_ms == windows.advance_ms else "hopping"
    return type(windows).__name__.removesuffix("Windows").lower()


def _without_time(late: LateRecords) -> LateRecords:
    def run(key: object, pair: tuple[object, int], timestamp: int, late_ms: int) -> None:
        late(key, pair[0], timestamp, late_ms)

    return run


def _noticed(record_came: Callable[[], None]) -> Forward:
    def notice(key: object, value: object, timestamp: int) -> None:
        record_came()

    return notice
