"""Windowed groupings: what count, reduce and aggregate per window are called on.

Rule of this module: a handle only adds nodes; it holds nothing but its position, its windows and where late records go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, TypeVar, get_args

from streamstate.errors import TopologyError
from streamstate.serde import Serde, long
from streamstate.topology.draft import Position
from streamstate.topology.names import checked
from streamstate.topology.specs import Late, SegmentSpec, StoreSpec, WindowedAggregate, WindowEmit
from streamstate.topology.table import Table
from streamstate.window_keys import segment_length, store_key
from streamstate.windows import (
    SessionWindows,
    SlidingWindows,
    TimeWindows,
    UnlimitedWindows,
    Windowed,
    milliseconds,
    windowed_serde,
)

K = TypeVar("K")
V = TypeVar("V")

Windows = TimeWindows | UnlimitedWindows | SlidingWindows | SessionWindows


class WindowedStream(Generic[K, V]):
    """Records grouped by key and window (Kafka Streams: ``TimeWindowedKStream``). Made by ``windowed_by``.

    A record counts as late for a window when stream time, as this operator has seen it in its task, is past the
    window's end and grace. Records that are late for all their windows are counted and dropped, or go to ``late_to``.

    A result's timestamp is the greatest of the records in it. Records with a null key or a null value are left out.
    """

    __slots__ = ("_at", "_late", "_windows")

    def __init__(self, at: Position, windows: Windows, late: Late | None = None) -> None:
        self._at = at
        self._windows = windows
        self._late = late

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._at.node}>"

    def count(
        self,
        *,
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: timedelta | None = None,
        idle: timedelta | None = None,
    ) -> Table[Windowed[K], int]:
        """Count the records of each key and window (Kafka Streams: ``TimeWindowedKStream.count``).

        Args:
            store: name of the store; it names the changelog topic.
            emit: ``update`` sends every change; ``close`` one result per window, when stream time passes its end and
                grace (Kafka Streams: ``EmitStrategy.onWindowClose``); ``commit`` the newest result of each window
                that changed, at each commit.
            retention: how long windows are kept, by stream time; at least, and by default, until they close.
            idle: with ``emit="close"``, when no record has come for so long by the wall clock, stream time goes on
                with the wall clock until one comes, so that the windows of an idle partition close. Results then
                depend on when records arrive: the one choice that makes them so. By default they do not.

        Raises:
            TopologyError: a serde is not known, the store's name is taken, illegal or cannot be generated, or an
                argument does not fit the windows.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, windows
        >>> words = Topology("t").stream("words", key=serde.string()).group_by_key()
        >>> words.windowed_by(windows.tumbling(timedelta(hours=1))).count(store="hourly", emit="close")
        <Table hourly.count in store hourly>
        """

        def spec(name: str) -> WindowedAggregate:
            return self._spec("count", name, lambda: 0, lambda key, value, count: count + 1, lambda k, a, b: a + b)

        return self._fold("count", store, long(), spec, emit, retention, idle)

    # -- how it is built -----------------------------------------------------------------------------------

    def _spec(
        self,
        kind: Any,
        store: str,
        initializer: Callable[[], Any] | None,
        aggregator: Callable[[Any, Any, Any], Any],
        merger: Callable[[Any, Any, Any], Any] | None,
        result: Callable[[Any], Any] | None = None,
    ) -> WindowedAggregate:
        key = self._at.key_serde("windowed_by")
        return WindowedAggregate(
            kind, store, self._windows, initializer, aggregator, merger, result, key, late=self._late
        )

    def _fold(
        self,
        kind: str,
        store: str | None,
        kept: Serde[Any],
        spec: Callable[[str], WindowedAggregate],
        emit: WindowEmit,
        retention: timedelta | None,
        idle: timedelta | None,
        *,
        carried: bool = True,
    ) -> Table[Windowed[K], Any]:
        """Add the aggregation and, where needed, its repartition topic."""
        at, windows = self._at, self._windows
        key = at.key_serde("windowed_by")
        if emit not in get_args(WindowEmit):
            raise TopologyError(f"{kind} after {at.node!r} takes emit='update', 'close' or 'commit', not {emit!r}")
        if emit == "close" and isinstance(windows, UnlimitedWindows):
            raise TopologyError(
                f"{kind} after {at.node!r}: unlimited windows never close, so emit='close' sends nothing"
            )
        if idle is not None and emit != "close":
            raise TopologyError(f"{kind} after {at.node!r}: idle= is for emit='close'")
        if store is None:
            store = node = at.draft.lasting_name(at.node, kind, "store")
        else:
            node = f"{checked(store, 'name of a store')}.{kind}"
        segments = _segments(windows, retention)
        at.draft.claim_store(StoreSpec(store, store_key(windows, key, segments.length_ms), kept, segments=segments))
        if at.key_changed:
            at = at.through_repartition(store, "group_by_key")
        idle_ms = None if idle is None else milliseconds(idle, "idle=", least_ms=1)
        made = replace(spec(store), emit=emit, idle_ms=idle_ms)
        at = replace(at.then(made, kind, node), key=windowed_serde(windows, key), value=kept if carried else None)
        return Table(at)


def _segments(windows: Windows, retention: timedelta | None) -> SegmentSpec:
    if isinstance(windows, UnlimitedWindows):
        return SegmentSpec(None)
    least_ms = windows.retention_ms
    retention_ms = least_ms if retention is None else milliseconds(retention, "the retention", least_ms=least_ms)
    return SegmentSpec(retention_ms, 1 if isinstance(windows, TimeWindows) else segment_length(retention_ms))
