"""Grouped streams: what count, reduce and aggregate are called on.

Rule of this module: grouping adds no node of its own. Each aggregation reads the grouped records directly or, when
they must be repartitioned, through its own repartition topic, named after its store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from streamstate.aggregates import Aggregate as NamedAggregate
from streamstate.aggregates.named import NamedFold, named_fold, of_fold
from streamstate.functions import by_field, own_initial
from streamstate.graph.handles import Handle, table_at
from streamstate.graph.names import checked
from streamstate.graph.spec import OperatorSpec
from streamstate.graph.store_settings import ttl_ms
from streamstate.graph.wrong_handle import wrong_kind
from streamstate.operators.aggregate.cogroup import CogroupedStream
from streamstate.operators.aggregate.spec import Aggregate, Count, Reduce
from streamstate.operators.base.folding import NOT_GIVEN, checked_initializer, functions_or_named
from streamstate.operators.stateless.spec import SelectKey
from streamstate.operators.topics.build import through_repartition
from streamstate.operators.windows.handle import SessionWindowedStream, WindowedStream
from streamstate.serde import Serde, SerdeLike, known_serde, long, serde_of
from streamstate.state.spec import StoreSpec
from streamstate.units import Duration
from streamstate.windows import SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows

if TYPE_CHECKING:
    from streamstate.dsl.table import Table

__all__ = ["GroupedStream", "Grouping"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
A = TypeVar("A")


class GroupedStream(Handle[K, V]):
    """Records grouped by key (Kafka Streams: ``KGroupedStream``). Made by ``group_by`` and ``group_by_key``.

    As in Kafka Streams, aggregations skip records with a null key or a null value.

    Each aggregation has a store. Without ``store=`` its name is generated from the path of operators before it.
    When the key may have changed since the records were partitioned, each aggregation writes and reads its own
    repartition topic ``{application id}-{store}-repartition``; two aggregations of one grouping make two.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<GroupedStream {self._at.node}>"

    def count(self, *, store: str | None = None, ttl: Duration | None = None) -> Table[K, int]:
        """Count the records of each key (Kafka Streams: ``KGroupedStream.count``).

        Args:
            store: name of the store; it names the changelog topic.
            ttl: forget a key when stream time is that far past the greatest time of its records, as
                ``stores.key_value`` does. The next record starts anew. Nothing is sent on when a key is forgotten.

        Raises:
            TopologyError: the key's serde is not known, or the store's name is taken, illegal or cannot be
                generated, or the ttl is below a millisecond.

        >>> from streamstate import Topology, serde
        >>> words = Topology("t").stream("words", key=serde.string())
        >>> words.group_by_key().count(store="counts")
        <Table counts.count in store counts>
        """
        return self._fold("count", store, long(), Count, ttl=ttl)

    def reduce(
        self,
        function: Callable[[V, V], V],
        *,
        store: str | None = None,
        ttl: Duration | None = None,
        value: SerdeLike[V] | None = None,
    ) -> Table[K, V]:
        """Fold the values of each key, the first being the start (Kafka Streams: ``KGroupedStream.reduce``).

        Args:
            function: (aggregate, value) to the next aggregate.
            store: name of the store; it names the changelog topic.
            ttl: as for ``count``.
            value: serde of the store's value; by default that of the stream.

        Raises:
            TopologyError: as for ``count``, or the value's serde is not known.

        >>> from streamstate import Topology, serde
        >>> bids = Topology("t").stream("bids", key=serde.string(), value=serde.long())
        >>> bids.group_by_key().reduce(max, store="highest")
        <Table highest.reduce in store highest>
        """
        self._at.check(function, "reduce", "aggregate, value")
        kept = known_serde(value, "value= of reduce") or self._at.value_serde("reduce")
        return self._fold("reduce", store, kept, lambda name: Reduce(name, function), ttl=ttl)

    def cogroup(self, aggregator: Callable[[K, V, A], A]) -> CogroupedStream[K, A]:
        """Start an aggregate of several grouped streams (Kafka Streams: ``KGroupedStream.cogroup``).

        Args:
            aggregator: (key, value, aggregate) to the next aggregate, for records of this stream.

        Raises:
            TopologyError: it is no function.

        >>> from streamstate import Topology, serde
        >>> topology = Topology("t")
        >>> flights = topology.stream("flights", key=serde.string(), value=serde.json()).group_by_key()
        >>> weather = topology.stream("weather", key=serde.string(), value=serde.json()).group_by_key()
        >>> flights.cogroup(lambda origin, flight, seen: seen + 1).cogroup(weather, lambda origin, report, seen: seen)
        <CogroupedStream flights + weather>
        """
        self._at.check(aggregator, "cogroup", "key, value, aggregate")
        return CogroupedStream(((self._at, aggregator),))

    @overload
    def windowed_by(self, windows: TimeWindows | SlidingWindows | UnlimitedWindows) -> WindowedStream[K, V]: ...

    @overload
    def windowed_by(self, windows: SessionWindows) -> SessionWindowedStream[K, V]: ...

    def windowed_by(
        self, windows: TimeWindows | SlidingWindows | UnlimitedWindows | SessionWindows
    ) -> WindowedStream[K, V] | SessionWindowedStream[K, V]:
        """Group by window too (Kafka Streams: ``KGroupedStream.windowedBy``).

        Args:
            windows: made by ``windows.tumbling``, ``hopping``, ``sliding``, ``session`` or ``unlimited``.

        Raises:
            TopologyError: they are no windows.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, windows
        >>> words = Topology("t").stream("words", key=serde.string()).group_by_key()
        >>> words.windowed_by(windows.tumbling(timedelta(hours=1), grace=timedelta(minutes=10)))
        <WindowedStream words>
        """
        if isinstance(windows, SessionWindows):
            return SessionWindowedStream(self._at, windows)
        if not isinstance(windows, TimeWindows | SlidingWindows | UnlimitedWindows):
            takes = "windows, such as windows.tumbling(timedelta(hours=1))"
            raise wrong_kind(f"windowed_by after {self._at.node!r}", "windows", windows, takes)
        return WindowedStream(self._at, windows)

    @overload
    def aggregate(
        self,
        initializer: Callable[[], A],
        aggregator: Callable[[K, V, A], A],
        *,
        value: SerdeLike[A],
        store: str | None = None,
        ttl: Duration | None = None,
    ) -> Table[K, A]: ...

    @overload
    def aggregate(
        self, *, store: str | None = None, ttl: Duration | None = None, **named: NamedAggregate
    ) -> Table[K, dict[str, Any]]: ...

    def aggregate(
        self,
        *functions: Any,
        initializer: Any = NOT_GIVEN,
        aggregator: Any = NOT_GIVEN,
        value: Any = None,
        store: str | None = None,
        ttl: Any = None,
        **named: NamedAggregate,
    ) -> Table[K, Any]:
        """Fold the records of each key (Kafka Streams: ``KGroupedStream.aggregate``).

        Called with two functions, or with ready aggregates by name, which make a dict of their results.

        Args:
            initializer: makes the aggregate of a key before its first record.
            aggregator: (key, value, aggregate) to the next aggregate.
            value: serde of the aggregate made by the two functions.
            store: name of the store; it names the changelog topic.
            ttl: as for ``count``.
            named: ready aggregates, see ``streamstate.aggregates``. Adding, removing or replacing one changes what
                the store holds: do it under a new store name.

        Raises:
            TopologyError: as for ``count``, or neither or both ways were used, or ``value`` is missing.

        >>> from streamstate import Topology, aggregates
        >>> flights = Topology("t", key=str, value=dict).stream("flights").group_by_key()
        >>> flights.aggregate(mean_delay=aggregates.mean("delay"), flights=aggregates.count(), store="delays")
        <Table delays.aggregate in store delays>
        >>> flights.aggregate(
        ...     initializer=list, aggregator=lambda key, flight, seen: [*seen, flight], value=list, store="all"
        ... )
        <Table all.aggregate in store all>
        """
        by_name = {"initializer": initializer, "aggregator": aggregator}
        settings = {"value": value, "ttl": ttl}
        given, named, (value, ttl) = functions_or_named(self._at, functions, by_name, named, settings)
        if named:
            return self._aggregate_named(store, ttl, named)
        initializer = own_initial(checked_initializer(self._at, given["initializer"]))
        aggregator = given["aggregator"]
        self._at.check(aggregator, "aggregate", "key, value, aggregate", argument="aggregator")
        kept = serde_of(value, f"value= of aggregate after {self._at.node!r}")
        return self._fold("aggregate", store, kept, lambda name: Aggregate(name, initializer, aggregator), ttl=ttl)

    def _aggregate_named(
        self, store: str | None, ttl: Duration | None, named: dict[str, NamedAggregate]
    ) -> Table[K, Any]:
        fold = named_fold(self._at.node, store or self._at.node, named)
        table: Table[K, Any] = self._fold(
            "aggregate",
            store,
            fold.kept,
            lambda name: Aggregate(name, fold.initializer, fold.aggregator, fold.result, fold.timed),
            ttl=ttl,
            fold=fold,
        )
        return table

    def _fold(
        self,
        kind: str,
        store: str | None,
        kept: Serde[Any],
        spec: Callable[[str], OperatorSpec],
        *,
        ttl: Duration | None,
        fold: NamedFold | None = None,
    ) -> Table[K, Any]:
        """Add the aggregation and, where needed, its repartition topic.

        ``kept`` is the serde of what the store keeps. The table shows just that, unless there are ready aggregates:
        ``fold``.
        """
        at = self._at
        key = at.key_serde("group_by_key")
        if store is None:
            store = node = at.builder.lasting_name(at.node, kind, "store")
        else:
            node = f"{checked(store, 'name of a store')}.{kind}"
        at.builder.claim_store(of_fold(StoreSpec(store, key, kept, ttl_ms=ttl_ms(ttl, store), content=kind), fold))
        if at.key_changed:
            at = through_repartition(at, store, "group_by_key")
        at = replace(at.then(spec(store), kind, node), value=kept if fold is None else None)
        return table_at(at)


class Grouping(Handle[K, V]):
    """``Stream.group_by`` and ``Stream.group_by_key``."""

    __slots__ = ()

    def group_by(
        self,
        function: str | Callable[[K, V], K2],
        *,
        key: SerdeLike[K2] | None = None,
        value: SerdeLike[V] | None = None,
        name: str | None = None,
    ) -> GroupedStream[K2, V]:
        """Group by ``function(key, value)``, through a repartition topic (Kafka Streams: ``groupBy``).

        Args:
            function: makes the new key; or the name of a field of the value.
            key: serde of the new key; by default that of the topology.
            value: serde of the value in the repartition topic; by default the one known.
            name: of the operator that replaces the key.

        Raises:
            TopologyError: a serde is not known.

        >>> from streamstate import Topology
        >>> flights = Topology("t", value=dict).stream("flights")
        >>> flights.group_by("origin", key=str)
        <GroupedStream flights.group_by>
        >>> flights.group_by(lambda key, flight: (flight["origin"], flight["dest"]), key=list, name="routes")
        <GroupedStream routes>
        """
        chosen = by_field(function)
        before = self._at.with_new_key().with_serdes(key, value)
        before.key_serde("group_by")
        before.value_serde("group_by")
        at = self._then(SelectKey(chosen), "group_by", name, chosen, "key, value").with_new_key()
        return GroupedStream(at.with_serdes(key, value))

    def group_by_key(
        self, *, key: SerdeLike[K] | None = None, value: SerdeLike[V] | None = None
    ) -> GroupedStream[K, V]:
        """Group by the key as it is (Kafka Streams: ``groupByKey``).

        The records go through a repartition topic only when an operator since the source, or since the last
        repartition, may have changed the key: map, flat_map, select_key or process.

        Args:
            key: serde of the key in the store; by default the one known.
            value: serde of the value; by default the one known.

        Raises:
            TopologyError: a serde that is needed is not known.

        >>> from streamstate import Topology, serde
        >>> Topology("t").stream("words", key=serde.string()).group_by_key()
        <GroupedStream words>
        """
        at = self._at.with_serdes(key, value)
        at.key_serde("group_by_key")
        if at.key_changed:
            at.value_serde("group_by_key")
        return GroupedStream(at)
