"""What ``Stream`` and ``Table`` have of tables: streams as tables, tables row by row, and their changes as streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, overload

from streamstate.functions import checked_supplier
from streamstate.graph.builder import attached_stores
from streamstate.graph.emit import StreamEmit, TableEmit, checked_emit
from streamstate.graph.handles import Handle, stream_at, table_at
from streamstate.operators.base.tables import claim_result_store, materialized
from streamstate.operators.process.api import ValueTransformer
from streamstate.operators.table.spec import TableFilter, TableMapValues, TableTransformValues, ToStream
from streamstate.operators.table.to_table import rows_of_stream
from streamstate.serde import SerdeLike
from streamstate.state.spec import StoreSpec
from streamstate.units import Duration

if TYPE_CHECKING:
    from streamstate.dsl.stream import Stream
    from streamstate.dsl.table import Table

__all__ = ["RowOperators", "StreamAsTable"]

K = TypeVar("K")
V = TypeVar("V")
V2 = TypeVar("V2")


class StreamAsTable(Handle[K, V]):
    """``to_table`` of a stream."""

    __slots__ = ()

    def to_table(
        self,
        *,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        store: str | None = None,
        versioned: Duration | None = None,
        emit: TableEmit = "update",
        name: str | None = None,
    ) -> Table[K, V]:
        """The records as rows of a table: the newest value per key, where null deletes (Kafka Streams: ``toTable``).

        Records with a null key are left out and counted. The newest is the one that comes last, whatever its event
        time. When the key may have changed since the records were partitioned, they go through a repartition topic.
        The table keeps its rows only when something needs them: a join, a grouping, or ``store=``.

        Args:
            key: serde of the key; by default the one known.
            value: serde of the value; by default the one known.
            store: name of the store, for processors; it names the changelog and the repartition topic.
            versioned: keep the versions of each row for this long, as ``Topology.table`` does.
            emit: ``update`` passes on every record; ``change`` only those whose serialized value differs from the
                row that was there.
            name: of the operator.

        Raises:
            TopologyError: a serde is not known, a name is illegal or taken, or cannot be generated.

        >>> from streamstate import Topology, serde
        >>> flights = Topology("t").stream("flights", value=serde.json())
        >>> flights.select_key(lambda key, flight: flight["tail"]).to_table(key=serde.string(), store="last-flights")
        <Table last-flights.to_table in store last-flights>
        """
        return table_at(rows_of_stream(self._at.with_serdes(key, value), store, versioned, emit, name))


class RowOperators(Handle[K, V]):
    """What is done with a table row by row."""

    __slots__ = ()

    def filter(
        self, predicate: Callable[[K, V], object], *, store: str | None = None, name: str | None = None
    ) -> Table[K, V]:
        """Keep the rows for which ``predicate(key, value)`` is true (Kafka Streams: ``KTable.filter``).

        A row that does not pass, or does not any more, is sent on as a deletion. Deletions of rows that were not
        there before either are left out where an operator further down compares old and new rows.

        Args:
            predicate: is not called for deletions.
            store: keep the rows that pass in a store of this name.
            name: of the operator.

        Raises:
            TopologyError: ``store`` is given and a serde is not known, or the name is taken.

        >>> from streamstate import Topology, serde
        >>> ages = Topology("t").table("ages", key=serde.string(), value=serde.long())
        >>> ages.filter(lambda name, age: age >= 18)
        <Table ages.table.filter>
        """
        self._at.check(predicate, "filter", "key, value")
        claim_result_store(self._at, store, "filter")
        return table_at(self._at.then(TableFilter(predicate, store=store), "filter", name))

    def filter_not(
        self, predicate: Callable[[K, V], object], *, store: str | None = None, name: str | None = None
    ) -> Table[K, V]:
        """Drop the rows for which ``predicate(key, value)`` is true (Kafka Streams: ``KTable.filterNot``).

        As ``filter`` in everything else.

        >>> from streamstate import Topology, serde
        >>> ages = Topology("t").table("ages", key=serde.string(), value=serde.long())
        >>> ages.filter_not(lambda name, age: age < 18, store="adults")
        <Table ages.table.filter_not in store adults>
        """
        self._at.check(predicate, "filter_not", "key, value")
        claim_result_store(self._at, store, "filter_not")
        return table_at(self._at.then(TableFilter(predicate, negate=True, store=store), "filter_not", name))

    @overload
    def map_values(
        self,
        function: Callable[[V], V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def map_values(
        self,
        function: Callable[[K, V], V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    def map_values(
        self,
        function: Callable[..., V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]:
        """Replace each row's value by ``function(value)`` or ``function(key, value)`` (Kafka Streams: ``mapValues``).

        The function is called again wherever a row is looked up, unless the result is kept in a store; it must not
        change the value it is given.

        Args:
            function: is not called for deletions, which are passed on. How many parameters it has decides whether it
                gets the key.
            value: serde of the result, needed with ``store``.
            store: keep the result in a store of this name.
            name: of the operator.

        Raises:
            TopologyError: ``store`` is given and a serde is not known, or the name is taken.

        >>> from streamstate import Topology, serde
        >>> planes = Topology("t").table("planes", key=serde.string(), value=serde.json())
        >>> planes.map_values(lambda plane: plane["seats"], value=serde.long(), store="seats")
        <Table planes.table.map_values in store seats>
        """
        with_key = self._at.takes_key(function, "map_values", "value")
        after = self._at.with_new_value().with_serdes(None, value)
        claim_result_store(after, store, "map_values")
        at = self._at.then(TableMapValues(function, store, with_key), "map_values", name)
        return table_at(at.with_new_value().with_serdes(None, value))

    def transform_values(
        self,
        supplier: Callable[[], ValueTransformer[K, V, V2]],
        *,
        stores: Sequence[StoreSpec | str] = (),
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]:
        """Replace each row's value by what a ValueTransformer of your own makes of it.

        Kafka Streams: ``KTable.transformValues``. It is called for deletions too. Its result is kept in a store when
        rows of it are looked up, since calling it again might give another.

        Args:
            supplier: a ValueTransformer subclass, or a function without arguments that makes one; it is called once
                for each task.
            stores: what ``context.store(name)`` may ask for, as for ``Stream.process``.
            value: serde of the result, needed where it is kept.
            store: keep the result in a store of this name.
            name: of the operator.

        Raises:
            TopologyError: the supplier is not one, a serde is needed and not known, or a name is taken.

        >>> from streamstate import Topology, ValueTransformer, serde
        >>> class Longest(ValueTransformer[str, str, str]):
        ...     def transform(self, key, value):
        ...         return value and max(value.split(), key=len)
        >>> Topology("t").table("lines", key=serde.string(), value=serde.string()).transform_values(Longest)
        <Table lines.table.transform_values>
        """
        where = f"transform_values after {self._at.node!r}"
        checked_supplier(supplier, where, ValueTransformer, "transform")
        uses = attached_stores(self._at.builder, stores, where)
        after = self._at.with_new_value().with_serdes(None, value)
        claim_result_store(after, store, "transform_values")
        spec = TableTransformValues(supplier, uses, self._at.key_serde("transform_values"), after.value, store)
        return table_at(replace(self._at.then(spec, "transform_values", name), value=after.value))

    def to(
        self,
        topic: str | Callable[[K, V], str],
        *,
        emit: StreamEmit = "update",
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        name: str | None = None,
    ) -> None:
        """Write the table's changes to a topic: ``to_stream(emit=...).to(topic)``. A row that is deleted is a null.

        Args:
            topic: its name, or a function of (key, value) that chooses it per record.
            emit: as for ``to_stream``.
            key: serde of the key; by default the one known.
            value: serde of the value; by default the one known.
            name: of the operator.

        Raises:
            TopologyError: as for ``to_stream`` and ``Stream.to``.

        >>> from streamstate import Topology
        >>> counts = Topology("t", key=str, value=str).stream("words").group_by_key().count(store="counts")
        >>> counts.to("word-counts", emit="commit")
        """
        self.to_stream(emit=emit).to(topic, key=key, value=value, name=name)

    def print(self, label: str | None = None, *, name: str | None = None) -> Table[K, V]:
        """Print each change, and go on with the table. For looking, as ``Stream.print``.

        Args:
            label: in front of each line; by default the name of the table's node.
            name: of the operator.

        >>> from streamstate import Topology
        >>> Topology("t", key=str, value=int).table("ages").print().filter(lambda name, age: age >= 18)
        <Table ages.table.filter>
        """
        self.to_stream().print(self._at.node if label is None else label, name=name)
        return table_at(self._at)

    def to_stream(self, *, emit: StreamEmit = "update", name: str | None = None) -> Stream[K, V]:
        """The table's changes as a stream (Kafka Streams: ``KTable.toStream``).

        Args:
            emit: ``update`` sends every update; ``change`` only those whose value differs from the row that was
                there, by its bytes where the serde is known; ``commit`` sends, at each commit, only the newest value
                of each key that was updated since the last one.
            name: of the operator.

        Raises:
            TopologyError: another ``emit``, or rows of this table are not kept and ``change`` compares them.

        >>> from streamstate import Topology, serde
        >>> counts = Topology("t").stream("words", key=serde.string()).group_by_key().count(store="counts")
        >>> counts.to_stream(emit="commit").to("word-counts")
        """
        checked_emit(emit, f"to_stream after {self._at.node!r}", StreamEmit)
        if emit == "change":
            materialized(self._at.builder, self._at.node, "to_stream")
        spec = ToStream(self._at.key_serde("to_stream"), emit, self._at.value)
        return stream_at(self._at.then(spec, "to_stream", name))
