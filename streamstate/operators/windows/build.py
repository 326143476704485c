"""What every windowed aggregation is given: its spec completed, and its store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streamstate.errors import TopologyError
from streamstate.graph.emit import WindowEmit, checked_emit
from streamstate.operators.windows.spec import WindowedAggregate
from streamstate.serde import Serde
from streamstate.state.spec import SegmentSpec, StoreSpec
from streamstate.units import Duration
from streamstate.windows import TimeWindows, UnlimitedWindows, milliseconds
from streamstate.windows.keys import index_of, segment_length, store_key

__all__ = ["completed", "window_store"]


def completed(
    spec: WindowedAggregate, node: str, store: str, emit: WindowEmit, idle: Duration | None
) -> WindowedAggregate:
    """The spec with what every windowed aggregation is told; ``node`` is what it comes after.

    Raises:
        TopologyError: it does not fit the windows.
    """
    kind = spec.kind
    checked_emit(emit, f"{kind} after {node!r}", WindowEmit)
    if emit == "close" and isinstance(spec.windows, UnlimitedWindows):
        raise TopologyError(f"{kind} after {node!r}: unlimited windows never close, so emit='close' sends nothing")
    if idle is not None and emit != "close":
        raise TopologyError(f"{kind} after {node!r}: idle= is for emit='close'")
    idle_ms = None if idle is None else milliseconds(idle, "idle=", least_ms=1)
    return replace(spec, store=store, emit=emit, idle_ms=idle_ms)


def window_store(spec: WindowedAggregate, kept: Serde[Any], retention: Duration | None) -> StoreSpec:
    """The store of an aggregation.

    Raises:
        TopologyError: the retention is less than the windows need.
    """
    windows = spec.windows
    if isinstance(windows, UnlimitedWindows):
        segments = SegmentSpec(None)
    else:
        least_ms = windows.retention_ms
        retention_ms = least_ms if retention is None else milliseconds(retention, "the retention", least_ms=least_ms)
        timed = isinstance(windows, TimeWindows)
        segments = SegmentSpec(
            retention_ms,
            1 if timed else segment_length(retention_ms),
            indexed=spec.emit == "close" and not timed,
            grace_ms=windows.grace_ms,
            final=spec.emit == "close",
        )
    return StoreSpec(
        spec.store,
        store_key(windows, spec.key, segments.length_ms),
        kept,
        segments=segments,
        content=f"{spec.kind} in {windows.content}",
        keys=lambda length_ms: store_key(windows, spec.key, length_ms),
        index_of=index_of(windows),
    )
