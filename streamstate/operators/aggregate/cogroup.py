"""Cogroups: several grouped streams folded into one aggregate, each by a function of its own.

Rule of this module: a handle only adds nodes; it holds nothing but the positions of its streams and their functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from streamstate.errors import TopologyError
from streamstate.functions import own_initial
from streamstate.graph.builder import NodeRef, same_builder
from streamstate.graph.emit import WindowEmit
from streamstate.graph.error_policy import FAIL
from streamstate.graph.handles import is_grouped_stream, table_at
from streamstate.graph.names import checked, shortened
from streamstate.graph.spec import OperatorSpec
from streamstate.graph.store_settings import ttl_ms
from streamstate.graph.wrong_handle import wrong_kind
from streamstate.operators.aggregate.spec import Aggregate
from streamstate.operators.stateless.spec import Merge
from streamstate.operators.topics.build import through_repartition
from streamstate.operators.windows.build import completed, window_store
from streamstate.operators.windows.fold import Aggregator
from streamstate.operators.windows.spec import WindowedAggregate, Windows
from streamstate.serde import Serde, SerdeLike, serde_of
from streamstate.state.spec import StoreSpec
from streamstate.units import Duration
from streamstate.windows import (
    SessionWindows,
    SlidingWindows,
    TimeWindows,
    UnlimitedWindows,
    Windowed,
    windowed_serde,
)

if TYPE_CHECKING:
    from streamstate.dsl.table import Table
    from streamstate.operators.aggregate.handle import GroupedStream

__all__ = ["CogroupedStream", "SessionWindowedCogroup", "WindowedCogroup"]

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")

Parts = tuple[tuple[NodeRef, Aggregator], ...]


class CogroupedStream(Generic[K, A]):
    """Grouped streams on their way into one aggregate (Kafka Streams: ``CogroupedKStream``). Made by ``cogroup``.

    Records with a null key or a null value are left out. Records of one stream are folded in their order; between
    streams the task takes the record with the smallest event time first.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __repr__(self) -> str:
        return f"<CogroupedStream {' + '.join(at.node for at, _ in self._parts)}>"

    def cogroup(self, grouped: GroupedStream[K, V], aggregator: Callable[[K, V, A], A]) -> CogroupedStream[K, A]:
        """Add a stream (Kafka Streams: ``CogroupedKStream.cogroup``).

        Args:
            grouped: the stream, with the same type of key.
            aggregator: (key, value, aggregate) to the next aggregate, for records of this stream.

        Raises:
            TopologyError: it is no grouped stream, or one of another Topology.

        >>> from streamstate import Topology, serde
        >>> topology = Topology("t")
        >>> bids = topology.stream("bids", key=serde.string(), value=serde.long()).group_by_key()
        >>> asks = topology.stream("asks", key=serde.string(), value=serde.long()).group_by_key()
        >>> both = bids.cogroup(lambda key, bid, net: net + bid).cogroup(asks, lambda key, ask, net: net - ask)
        >>> both.aggregate(initializer=int, value=int, store="net")
        <Table net.cogroup in store net>
        """
        first = self._parts[0][0]
        if not is_grouped_stream(grouped):
            raise wrong_kind(f"cogroup after {first.node!r}", "GroupedStream", grouped, "a grouped stream")
        at = grouped._at
        same_builder(first.builder, at.builder, "cogroup")
        at.check(aggregator, "cogroup", "key, value, aggregate")
        return CogroupedStream((*self._parts, (at, aggregator)))

    def aggregate(
        self,
        initializer: Callable[[], A],
        *,
        value: SerdeLike[A],
        store: str | None = None,
        ttl: Duration | None = None,
    ) -> Table[K, A]:
        """Fold the records of each key (Kafka Streams: ``CogroupedKStream.aggregate``).

        Args:
            initializer: makes the aggregate of a key before its first record.
            value: serde of the aggregate.
            store: name of the store; it names the changelog topic.
            ttl: as for ``GroupedStream.count``.

        Raises:
            TopologyError: a serde is not known, or the store's name is taken, illegal or cannot be generated, or the
                ttl is below a millisecond.
        """
        first = self._parts[0][0]
        first.check(initializer, "cogroup", "", argument="initializer")
        kept = _serde(first.node, value)
        key = first.key_serde("cogroup")
        store, node = _names(first, store)
        first.builder.claim_store(StoreSpec(store, key, kept, ttl_ms=ttl_ms(ttl, store), content="cogroup"))
        aggregators = tuple(aggregator for _, aggregator in self._parts)
        spec = Aggregate(store, own_initial(initializer), aggregators[0], others=aggregators[1:])
        return table_at(replace(_joined(self._parts, store, node, spec), key=key, value=kept))

    @overload
    def windowed_by(self, windows: TimeWindows | SlidingWindows | UnlimitedWindows) -> WindowedCogroup[K, A]: ...

    @overload
    def windowed_by(self, windows: SessionWindows) -> SessionWindowedCogroup[K, A]: ...

    def windowed_by(
        self, windows: TimeWindows | SlidingWindows | UnlimitedWindows | SessionWindows
    ) -> WindowedCogroup[K, A] | SessionWindowedCogroup[K, A]:
        """Group by window too (Kafka Streams: ``CogroupedKStream.windowedBy``).

        Args:
            windows: made by ``windows.tumbling``, ``hopping``, ``sliding``, ``session`` or ``unlimited``.

        Raises:
            TopologyError: they are no windows.
        """
        if isinstance(windows, SessionWindows):
            return SessionWindowedCogroup(self._parts, windows)
        if not isinstance(windows, TimeWindows | SlidingWindows | UnlimitedWindows):
            raise wrong_kind(f"windowed_by after {self._parts[0][0].node!r}", "windows", windows, "windows")
        return WindowedCogroup(self._parts, windows)


class _WindowedCogroup(Generic[K, A]):
    __slots__ = ("_parts", "_windows")

    def __init__(self, parts: Parts, windows: Windows) -> None:
        self._parts = parts
        self._windows = windows

    def _fold(
        self,
        initializer: Callable[[], A],
        merger: Callable[[K, A, A], A] | None,
        value: SerdeLike[A],
        store: str | None,
        emit: WindowEmit,
        retention: Duration | None,
        idle: Duration | None,
    ) -> Table[Windowed[K], A]:
        first = self._parts[0][0]
        first.check(initializer, "cogroup", "", argument="initializer")
        if isinstance(self._windows, SessionWindows):
            first.check(merger, "cogroup", "key, aggregate, aggregate", argument="merger")
        kept = _serde(first.node, value)
        key = first.key_serde("cogroup")
        store, node = _names(first, store)
        aggregators = tuple(aggregator for _, aggregator in self._parts)
        spec = WindowedAggregate(
            "cogroup", store, self._windows, own_initial(initializer), aggregators, merger, None, key
        )
        spec = completed(spec, first.node, store, emit, idle)
        first.builder.claim_store(window_store(spec, kept, retention))
        at = _joined(self._parts, store, node, spec)
        return table_at(replace(at, key=windowed_serde(self._windows, key), value=kept))


class WindowedCogroup(_WindowedCogroup[K, A]):
    """A cogroup by window (Kafka Streams: ``TimeWindowedCogroupedKStream``)."""

    __slots__ = ()

    def aggregate(
        self,
        initializer: Callable[[], A],
        *,
        value: SerdeLike[A],
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Duration | None = None,
        idle: Duration | None = None,
    ) -> Table[Windowed[K], A]:
        """Fold the records of each key and window (Kafka Streams: ``aggregate``).

        Args:
            initializer: makes the aggregate of a window before its first record.
            value: serde of the aggregate.
            store: name of the store; it names the changelog topic.
            emit: as in ``WindowedStream.count``.
            retention: as in ``WindowedStream.count``.
            idle: as in ``WindowedStream.count``.

        Raises:
            TopologyError: as for ``WindowedStream.count``.
        """
        return self._fold(initializer, None, value, store, emit, retention, idle)


class SessionWindowedCogroup(_WindowedCogroup[K, A]):
    """A cogroup by session (Kafka Streams: ``SessionWindowedCogroupedKStream``)."""

    __slots__ = ()

    def aggregate(
        self,
        initializer: Callable[[], A],
        merger: Callable[[K, A, A], A],
        *,
        value: SerdeLike[A],
        store: str | None = None,
        emit: WindowEmit = "update",
        retention: Duration | None = None,
        idle: Duration | None = None,
    ) -> Table[Windowed[K], A]:
        """Fold the records of each key and session; as ``WindowedCogroup.aggregate``.

        Args:
            merger: (key, aggregate, aggregate) to that of both, the first of the earlier session.
        """
        return self._fold(initializer, merger, value, store, emit, retention, idle)


def _serde(node: str, value: SerdeLike[A] | None) -> Serde[A]:
    if value is None:
        raise TopologyError(
            f"cogroup after {node!r} needs the serde of the aggregate: pass value=, such as value=serde.json()"
        )
    return serde_of(value, f"value= of cogroup after {node!r}")


def _names(first: NodeRef, store: str | None) -> tuple[str, str]:
    if store is None:
        name = first.builder.lasting_name(first.node, "cogroup", "store")
        return name, name
    return store, f"{checked(store, 'name of a store')}.cogroup"


def _joined(parts: Parts, store: str, node: str, spec: OperatorSpec) -> NodeRef:
    """Add the aggregation of all parts, each through a repartition topic where its key may have changed."""
    times_read = Counter(at.node for at, _ in parts)
    inputs: list[NodeRef] = []
    for at, _ in parts:
        if times_read[at.node] > 1:
            # A node for each time, so that the aggregation can tell them apart and takes them in this order.
            at = at.then(Merge(), "cogroup-input", None)
        if at.key_changed:
            at = through_repartition(at, shortened(f"{store}-{at.node}"), "group_by")
        inputs.append(at)
    first = inputs[0]
    name = first.builder.add(spec, tuple(at.node for at in inputs), "cogroup", node)
    policy = first.on_error if all(at.on_error == first.on_error for at in inputs) else FAIL
    return replace(first, node=name, key_changed=False, on_error=policy)
