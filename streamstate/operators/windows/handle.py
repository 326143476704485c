"""Windowed groupings: what count, reduce and aggregate per window are called on.

Rule of this module: a handle only adds nodes; it holds nothing but its position, its windows and where late records go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from streamstate.aggregates import Aggregate as NamedAggregate
from streamstate.aggregates.named import NamedFold, named_fold, of_fold
from streamstate.errors import TopologyError
from streamstate.functions import own_initial
from streamstate.graph.builder import NodeRef
from streamstate.graph.emit import WindowEmit
from streamstate.graph.handles import table_at
from streamstate.graph.names import checked
from streamstate.operators.base.folding import NOT_GIVEN, checked_initializer, functions_or_named
from streamstate.operators.topics.build import through_repartition
from streamstate.operators.windows.build import completed, window_store
from streamstate.operators.windows.fold import Aggregator
from streamstate.operators.windows.spec import Late, WindowedAggregate, Windows
from streamstate.serde import Serde, SerdeLike, known_serde, long, serde_of
from streamstate.units import Duration
from streamstate.windows import (
    SessionWindows,
    Windowed,
    windowed_serde,
)

if TYPE_CHECKING:
    from streamstate.dsl.table import Table

__all__ = ["SessionWindowedStream", "WindowedStream"]

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")

Kind = Literal["count", "reduce", "aggregate", "cogroup"]


class _Windowed(Generic[K, V]):
    __slots__ = ("_at", "_late", "_windows")

    def __init__(self, at: NodeRef, windows: Windows, late: Late | None = None) -> None:
        self._at = at
        self._windows = windows
        self._late = late

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._at.node}>"

    def late_to(self, topic: str, *, key: SerdeLike[K] | None = None, value: SerdeLike[V] | None = None) -> Self:
        """Send late records to a topic, in the same transaction, instead of dropping them.

        They keep their key, value, event time and headers, and get the header ``streamstate.late_ms``: by how many
        milliseconds they came too late for the last window that would have taken them. Kafka Streams has no such
        thing; Flink's name is side output of late data.

        Args:
            topic: its name.
            key: serde of the key; by default the one known.
            value: serde of the value; by default the one known.

        Raises:
            TopologyError: a serde is not known, or no topic can be called that.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, windows
        >>> words = Topology("t").stream("words", key=serde.string(), value=serde.string()).group_by_key()
        >>> words.windowed_by(windows.tumbling(timedelta(hours=1))).late_to("late-words")
        <WindowedStream words>
        """
        at = self._at.with_serdes(key, value)
        checked(topic, "topic of late records")
        return type(self)(self._at, self._windows, Late(topic, at.key_serde("late_to"), at.value_serde("late_to")))

    def count(
        self,
        *,
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Duration | None = None,
        idle: Duration | None = None,
    ) -> Table[Windowed[K], int]:
        """Count the records of each key and window (Kafka Streams: ``count``).

        Args:
            store: name of the store; it names the changelog topic.
            emit: ``update`` sends every change; ``close`` one result per window, when stream time passes its end and
                grace (Kafka Streams: ``EmitStrategy.onWindowClose``); ``commit`` the newest result of each window
                that changed, at each commit.
            retention: how long windows are kept, by stream time; at least, and by default, until they close.
            idle: with ``emit="close"``, once no record has come for so long by the wall clock, stream time goes on
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
        spec = self._spec(
            "count", lambda: 0, lambda key, value, number: number + 1, lambda key, one, other: one + other, None
        )
        return self._fold(spec, store, long(), emit, retention, idle)

    def reduce(
        self,
        function: Callable[[V, V], V],
        *,
        store: str | None = None,
        value: SerdeLike[V] | None = None,
        emit: WindowEmit = "update",
        retention: Duration | None = None,
        idle: Duration | None = None,
    ) -> Table[Windowed[K], V]:
        """Fold the values of each key and window, the first being the start (Kafka Streams: ``reduce``).

        Args:
            function: (aggregate, value) to the next aggregate; of two sessions, (earlier, later) to that of both.
            store: name of the store; it names the changelog topic.
            value: serde of the store's value; by default that of the stream.
            emit: as in ``count``.
            retention: as in ``count``.
            idle: as in ``count``.

        Raises:
            TopologyError: as for ``count``, or the value's serde is not known.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, windows
        >>> bids = Topology("t").stream("bids", key=serde.string(), value=serde.long()).group_by_key()
        >>> bids.windowed_by(windows.session(timedelta(minutes=5))).reduce(max, store="highest")
        <Table highest.reduce in store highest>
        """
        self._at.check(function, "reduce", "aggregate, value")
        kept = known_serde(value, "value= of reduce") or self._at.value_serde("reduce")

        def fold(key: Any, new: Any, old: Any) -> Any:
            return function(old, new)

        def merge(key: Any, one: Any, other: Any) -> Any:
            return function(one, other)

        return self._fold(self._spec("reduce", None, fold, merge, None), store, kept, emit, retention, idle)

    # -- how it is built -----------------------------------------------------------------------------------

    def _named(
        self,
        named: dict[str, NamedAggregate],
        store: str | None,
        emit: WindowEmit,
        retention: Duration | None,
        idle: Duration | None,
    ) -> Table[Windowed[K], dict[str, Any]]:
        fold = named_fold(self._at.node, store or self._at.node, named)
        if isinstance(self._windows, SessionWindows) and fold.unmergeable:
            raise TopologyError(
                f"aggregate after {self._at.node!r}: sessions grow together, and {', '.join(fold.unmergeable)} "
                "cannot merge two states: give Aggregate(..., merge=)"
            )
        spec = self._spec("aggregate", fold.initializer, fold.aggregator, fold.merger, fold.result, timed=fold.timed)
        return self._fold(spec, store, fold.kept, emit, retention, idle, fold=fold)

    def _aggregate(
        self,
        in_order: tuple[Any, ...],
        by_name: dict[str, Any],
        named: dict[str, NamedAggregate],
        value: Any,
        store: str | None,
        emit: WindowEmit,
        retention: Any,
        idle: Any,
    ) -> Table[Windowed[K], Any]:
        settings = {"value": value, "retention": retention, "idle": idle}
        functions, ready, (value, retention, idle) = functions_or_named(self._at, in_order, by_name, named, settings)
        if ready:
            return self._named(ready, store, emit, retention, idle)
        initializer = own_initial(checked_initializer(self._at, functions["initializer"]))
        forms = {"aggregator": "key, value, aggregate", "merger": "key, aggregate, aggregate"}
        for name, form in forms.items():
            if name in functions:
                self._at.check(functions[name], "aggregate", form, argument=name)
        spec = self._spec("aggregate", initializer, functions["aggregator"], functions.get("merger"), None)
        kept = serde_of(value, f"value= of aggregate after {self._at.node!r}")
        return self._fold(spec, store, kept, emit, retention, idle)

    def _spec(
        self,
        kind: Kind,
        initializer: Callable[[], Any] | None,
        aggregator: Aggregator,
        merger: Aggregator | None,
        result: Callable[[Any], Any] | None,
        *,
        timed: bool = False,
    ) -> WindowedAggregate:
        return WindowedAggregate(
            kind, "", self._windows, initializer, (aggregator,), merger, result,
            self._at.key_serde("windowed_by"), late=self._late, timed=timed,
        )  # fmt: skip

    def _fold(
        self,
        spec: WindowedAggregate,
        store: str | None,
        kept: Serde[Any],
        emit: WindowEmit,
        retention: Duration | None,
        idle: Duration | None,
        *,
        fold: NamedFold | None = None,
    ) -> Table[Windowed[K], Any]:
        """Add the aggregation and, where needed, its repartition topic; the table shows what is kept, unless there are
        ready aggregates: ``fold``."""
        at = self._at
        if store is None:
            store = node = at.builder.lasting_name(at.node, spec.kind, "store")
        else:
            node = f"{checked(store, 'name of a store')}.{spec.kind}"
        spec = completed(spec, at.node, store, emit, idle)
        at.builder.claim_store(of_fold(window_store(spec, kept, retention), fold))
        if at.key_changed:
            at = through_repartition(at, store, "group_by_key")
        at = replace(
            at.then(spec, spec.kind, node),
            key=windowed_serde(spec.windows, spec.key),
            value=kept if fold is None else None,
        )
        return table_at(at)


class WindowedStream(_Windowed[K, V]):
    """Records grouped by key and window (Kafka Streams: ``TimeWindowedKStream``). Made by ``windowed_by``.

    A record is late for a window when stream time, as this operator has seen it in its task, is past the window's end
    and grace. Records that are late for all their windows are counted and dropped, or go to ``late_to``. A result's
    timestamp is the greatest of the records in it. Records with a null key or a null value are left out.
    """

    __slots__ = ()

    @overload
    def aggregate(
        self,
        initializer: Callable[[], A],
        aggregator: Callable[[K, V, A], A],
        *,
        value: SerdeLike[A],
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Duration | None = None,
        idle: Duration | None = None,
    ) -> Table[Windowed[K], A]: ...

    @overload
    def aggregate(
        self,
        *,
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Duration | None = None,
        idle: Duration | None = None,
        **named: NamedAggregate,
    ) -> Table[Windowed[K], dict[str, Any]]: ...

    def aggregate(
        self,
        *functions: Any,
        initializer: Any = NOT_GIVEN,
        aggregator: Any = NOT_GIVEN,
        value: Any = None,
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Any = None,
        idle: Any = None,
        **named: NamedAggregate,
    ) -> Table[Windowed[K], Any]:
        """Fold the records of each key and window (Kafka Streams: ``TimeWindowedKStream.aggregate``).

        Called with two functions, or with ready aggregates by name, which make a dict of their results.

        Args:
            initializer: makes the aggregate of a window before its first record.
            aggregator: (key, value, aggregate) to the next aggregate; of sliding windows, it must not change the
                aggregate it is given, because windows start from others.
            value: serde of the aggregate made by the two functions.
            store: name of the store; it names the changelog topic.
            emit: as in ``count``.
            retention: as in ``count``.
            idle: as in ``count``.
            named: ready aggregates, see ``streamstate.aggregates``.

        Raises:
            TopologyError: as for ``count``, or neither or both ways were used, or ``value`` is missing.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, aggregates, serde, windows
        >>> flights = Topology("t").stream("flights", key=serde.string(), value=serde.json()).group_by_key()
        >>> hourly = flights.windowed_by(windows.tumbling(timedelta(hours=1)))
        >>> hourly.aggregate(mean_delay=aggregates.mean("delay"), store="delays", emit="close")
        <Table delays.aggregate in store delays>
        """
        by_name = {"initializer": initializer, "aggregator": aggregator}
        return self._aggregate(functions, by_name, named, value, store, emit, retention, idle)


class SessionWindowedStream(_Windowed[K, V]):
    """Records grouped by key and session (Kafka Streams: ``SessionWindowedKStream``). Made by ``windowed_by``.

    A record joins all sessions of its key that are at most the gap away. They are replaced by one: the table deletes
    them and has the new one. A result's timestamp is the session's end.
    """

    __slots__ = ()

    @overload
    def aggregate(
        self,
        initializer: Callable[[], A],
        aggregator: Callable[[K, V, A], A],
        merger: Callable[[K, A, A], A],
        *,
        value: SerdeLike[A],
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Duration | None = None,
        idle: Duration | None = None,
    ) -> Table[Windowed[K], A]: ...

    @overload
    def aggregate(
        self,
        *,
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Duration | None = None,
        idle: Duration | None = None,
        **named: NamedAggregate,
    ) -> Table[Windowed[K], dict[str, Any]]: ...

    def aggregate(
        self,
        *functions: Any,
        initializer: Any = NOT_GIVEN,
        aggregator: Any = NOT_GIVEN,
        merger: Any = NOT_GIVEN,
        value: Any = None,
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Any = None,
        idle: Any = None,
        **named: NamedAggregate,
    ) -> Table[Windowed[K], Any]:
        """Fold the records of each key and session (Kafka Streams: ``SessionWindowedKStream.aggregate``).

        As ``WindowedStream.aggregate``, with a third function.

        Args:
            merger: (key, aggregate, aggregate) to that of both, the first of the earlier session. It is called with
                what the initializer makes, too, and must not change what it is given.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, aggregates, serde, windows
        >>> flights = Topology("t").stream("flights", key=serde.string(), value=serde.json()).group_by_key()
        >>> days = flights.windowed_by(windows.session(timedelta(hours=6)))
        >>> days.aggregate(route=aggregates.collect("dest"), store="routes", emit="close")
        <Table routes.aggregate in store routes>
        """
        by_name = {"initializer": initializer, "aggregator": aggregator, "merger": merger}
        return self._aggregate(functions, by_name, named, value, store, emit, retention, idle)
