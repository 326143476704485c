"""What a stream can be joined with: another stream, by key and time, or a table, by key.

Rule of this module: as of ``stream``, of whose handle it is a part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from streamstate.errors import TopologyError
from streamstate.graph.builder import NodeRef
from streamstate.graph.handles import Handle, is_global_table, is_stream, is_table, stream_at
from streamstate.graph.wrong_handle import wrong_kind
from streamstate.operators.stream_join.build import join_streams
from streamstate.operators.stream_table_join.build import join_global_table, join_table
from streamstate.serde import SerdeLike, known_serde
from streamstate.units import Duration
from streamstate.windows import JoinWindows

if TYPE_CHECKING:
    from streamstate.dsl.global_table import GlobalTable
    from streamstate.dsl.stream import Stream
    from streamstate.dsl.table import Table

__all__ = ["Joins"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
T = TypeVar("T")


class Joins(Handle[K, V]):
    """The joins of ``Stream``."""

    __slots__ = ()

    @overload
    def join(
        self,
        other: Stream[K, T],
        joiner: Callable[[V, T], V2],
        *,
        within: JoinWindows | Duration,
        store: str | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[T] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def join(
        self,
        other: Stream[K, T],
        joiner: Callable[[K, V, T], V2],
        *,
        within: JoinWindows | Duration,
        store: str | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[T] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def join(
        self,
        other: Table[K, T],
        joiner: Callable[[V, T], V2],
        *,
        grace: Duration | None = None,
        tolerance: Duration | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def join(
        self,
        other: Table[K, T],
        joiner: Callable[[K, V, T], V2],
        *,
        grace: Duration | None = None,
        tolerance: Duration | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def join(
        self,
        other: GlobalTable[K2, T],
        joiner: Callable[[V, T], V2],
        *,
        on: str | Callable[[K, V], K2 | None],
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def join(
        self,
        other: GlobalTable[K2, T],
        joiner: Callable[[K, V, T], V2],
        *,
        on: str | Callable[[K, V], K2 | None],
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    def join(
        self,
        other: Stream[K, Any] | Table[K, Any] | GlobalTable[Any, Any],
        joiner: Callable[..., Any],
        *,
        on: str | Callable[[K, V], Any] | None = None,
        within: JoinWindows | Duration | None = None,
        store: str | None = None,
        grace: Duration | None = None,
        tolerance: Duration | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[Any] | None = None,
        name: str | None = None,
    ) -> Stream[K, Any]:
        """Join with another stream, by key and time, or with a table, by key.

        *With a stream* (Kafka Streams: ``KStream.join`` with ``JoinWindows``): each pair of records with equal keys
        whose times are close enough makes a result, when the second of them comes, with the greater of the two times.
        Both streams are kept for as long as their records may be needed. Records with a null key or a null value
        make no result. A stream may be joined with itself.

        *With a table* (Kafka Streams: ``KStream.join`` with a ``KTable``): records of the stream make results, changes
        of the table do not. A record meets the row as it is when its turn comes; a task takes its inputs in the order
        of their event times. The result has the record's timestamp. Records without a row, with a null key or with a
        null value make no result.

        With a versioned table (``Topology.table(..., versioned=...)``) a record meets the row that held at its event
        time: an as-of join. With ``grace`` each record waits until the stream's time is so far past its own, so that
        rows which come late are there; records that are later than that are joined at once.

        *With a global table* (Kafka Streams: ``KStream.join`` with a ``GlobalKTable``): a record meets the row whose
        key ``on`` gives, as that row is then; neither the keys nor the partitions of the two matter.

        When an operator since the source may have changed a stream's key, the stream goes through a repartition
        topic. Both sides must have equally many partitions.

        Args:
            other: the other stream, the table or the global table.
            joiner: (value of this stream, value of the other or of the table) to the value of the result, or (key of
                this stream, both values): how many parameters it has decides. The key cannot be changed.
            on: with a global table: (key, value) to the key of the row, or None for none.
            within: with a stream: how far apart records may be, made by ``windows.join``.
            store: with a stream: what its stores are named after, ``{store}-left`` and ``{store}-right``.
            grace: how long records wait for a versioned table; the table's history must be as long. Kafka Streams:
                ``Joined.withGracePeriod``.
            tolerance: how much older than the record the row of a versioned table may be; older ones count as none.
            key: serde of the key; by default the one known.
            value: serde of this stream's value; by default the one known.
            other_value: with a stream: serde of its value; by default the one known.
            name: of the operator and, with a table, where one is needed, of the repartition topic.

        Raises:
            TopologyError: a serde is not known, ``other`` is of another Topology, or an argument does not fit it.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, windows
        >>> topology = Topology("t")
        >>> flights = topology.stream("flights", key=serde.string(), value=serde.json())
        >>> weather = topology.stream("weather", key=serde.string(), value=serde.json())
        >>> flights.join(weather, lambda flight, report: {**report, **flight}, store="met",
        ...              within=windows.join(before=timedelta(hours=1), after=timedelta(0)))
        <Stream met.join>
        >>> planes = topology.table("planes", key=serde.string(), value=serde.json())
        >>> flights.join(planes, lambda flight, plane: {**flight, "seats": plane["seats"]})
        <Stream flights.join>
        >>> airlines = topology.global_table("airlines", key=serde.string(), value=serde.string())
        >>> flights.join(airlines, lambda flight, name: name, on=lambda tail, flight: flight["carrier"], name="named")
        <Stream named>
        """
        if is_stream(other):
            return self._with_stream(
                "join", other, joiner, within, (False, False), store, name, key, value, other_value
            )
        if is_global_table(other):
            self._only_on("join", within, store, grace, tolerance, key, value, other_value)
            at = join_global_table(self._at, other._at, joiner, left=False, on=on, name=name)
            return stream_at(at)
        table = self._table("join", other, within, store, other_value, on)
        at = join_table(
            self._at,
            table,
            joiner,
            left=False,
            grace=grace,
            tolerance=tolerance,
            key=known_serde(key, key=True),
            value=known_serde(value),
            name=name,
        )
        return stream_at(at)

    @overload
    def left_join(
        self,
        other: Stream[K, T],
        joiner: Callable[[V, T | None], V2],
        *,
        within: JoinWindows | Duration,
        store: str | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[T] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def left_join(
        self,
        other: Stream[K, T],
        joiner: Callable[[K, V, T | None], V2],
        *,
        within: JoinWindows | Duration,
        store: str | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[T] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def left_join(
        self,
        other: Table[K, T],
        joiner: Callable[[V, T | None], V2],
        *,
        grace: Duration | None = None,
        tolerance: Duration | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def left_join(
        self,
        other: Table[K, T],
        joiner: Callable[[K, V, T | None], V2],
        *,
        grace: Duration | None = None,
        tolerance: Duration | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def left_join(
        self,
        other: GlobalTable[K2, T],
        joiner: Callable[[V, T | None], V2],
        *,
        on: str | Callable[[K, V], K2 | None],
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def left_join(
        self,
        other: GlobalTable[K2, T],
        joiner: Callable[[K, V, T | None], V2],
        *,
        on: str | Callable[[K, V], K2 | None],
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    def left_join(
        self,
        other: Stream[K, Any] | Table[K, Any] | GlobalTable[Any, Any],
        joiner: Callable[..., Any],
        *,
        on: str | Callable[[K, V], Any] | None = None,
        within: JoinWindows | Duration | None = None,
        store: str | None = None,
        grace: Duration | None = None,
        tolerance: Duration | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[Any] | None = None,
        name: str | None = None,
    ) -> Stream[K, Any]:
        """As ``join``, and records of this stream that meet nothing too (Kafka Streams: ``KStream.leftJoin``).

        For those ``joiner`` gets None in place of the other value. With a stream they are sent once stream time, of
        both streams together, has passed the end of their window and its grace, at the next record that moves it; those
        with a null key at once. They wait in the store ``{store}-waiting``. Records with a null value make no result.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, windows
        >>> topology = Topology("t")
        >>> names = topology.table("names", key=serde.string(), value=serde.string())
        >>> visits = topology.stream("visits", key=serde.string(), value=serde.string())
        >>> visits.left_join(names, lambda visit, name: name or "unknown")
        <Stream visits.left_join>
        >>> orders = topology.stream("orders", key=serde.string(), value=serde.string())
        >>> within = windows.join(timedelta(hours=1), grace=timedelta(minutes=5))
        >>> visits.left_join(orders, lambda visit, order: order is not None, within=within, store="bought")
        <Stream bought.left_join>
        """
        if is_stream(other):
            alone = (True, False)
            self._no_table("left_join", grace, tolerance)
            return self._with_stream("left_join", other, joiner, within, alone, store, name, key, value, other_value)
        if is_global_table(other):
            self._only_on("left_join", within, store, grace, tolerance, key, value, other_value)
            at = join_global_table(self._at, other._at, joiner, left=True, on=on, name=name)
            return stream_at(at)
        table = self._table("left_join", other, within, store, other_value, on)
        at = join_table(
            self._at,
            table,
            joiner,
            left=True,
            grace=grace,
            tolerance=tolerance,
            key=known_serde(key, key=True),
            value=known_serde(value),
            name=name,
        )
        return stream_at(at)

    @overload
    def outer_join(
        self,
        other: Stream[K, T],
        joiner: Callable[[V | None, T | None], V2],
        *,
        within: JoinWindows | Duration,
        store: str | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[T] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def outer_join(
        self,
        other: Stream[K, T],
        joiner: Callable[[K, V | None, T | None], V2],
        *,
        within: JoinWindows | Duration,
        store: str | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[T] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    def outer_join(
        self,
        other: Stream[K, T],
        joiner: Callable[..., V2],
        *,
        within: JoinWindows | Duration,
        store: str | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        other_value: SerdeLike[T] | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]:
        """As ``left_join`` with a stream, and the records of the other one that meet nothing, too.

        Kafka Streams: ``KStream.outerJoin``.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, windows
        >>> topology = Topology("t")
        >>> sent = topology.stream("sent", key=serde.string(), value=serde.long())
        >>> received = topology.stream("received", key=serde.string(), value=serde.long())
        >>> sent.outer_join(received, lambda out, back: (out, back), within=windows.join(timedelta(seconds=30)))
        <Stream sent.outer_join>
        """
        if not is_stream(other):
            raise wrong_kind(f"outer_join after {self._at.node!r}", "Stream", other)
        alone = (True, True)
        return self._with_stream("outer_join", other, joiner, within, alone, store, name, key, value, other_value)

    def _with_stream(
        self,
        kind: str,
        other: Stream[K, Any],
        joiner: Callable[..., Any],
        within: JoinWindows | Duration | None,
        alone: tuple[bool, bool],
        store: str | None,
        name: str | None,
        key: SerdeLike[Any] | None,
        value: SerdeLike[Any] | None,
        other_value: SerdeLike[Any] | None,
    ) -> Stream[K, Any]:
        return stream_at(
            join_streams(
                kind, self._at, other._at, joiner, within, left_alone=alone[0], right_alone=alone[1],
                store=store, name=name, key=known_serde(key, key=True), value=known_serde(value),
                other_value=known_serde(other_value),
            )
        )  # fmt: skip

    def _no_table(self, kind: str, *arguments: object) -> None:
        if any(argument is not None for argument in arguments):
            raise TopologyError(
                f"{kind} after {self._at.node!r}: grace= and tolerance= are for joins with a versioned table; the "
                "grace of a join with a stream is that of windows.join(..., grace=)"
            )

    def _only_on(self, kind: str, *arguments: object) -> None:
        if any(argument is not None for argument in arguments):
            raise TopologyError(f"{kind} after {self._at.node!r} with a global table takes on= and name= only")

    def _table(self, kind: str, other: object, *arguments: object) -> NodeRef:
        if not is_table(other):
            takes = "a Stream, a Table or a GlobalTable"
            raise wrong_kind(f"{kind} after {self._at.node!r}", "Table", other, takes)
        if any(argument is not None for argument in arguments):
            raise TopologyError(
                f"{kind} after {self._at.node!r}: within=, store= and other_value= are for joins with a stream, on= is "
                "for joins with a global table"
            )
        return other._at
