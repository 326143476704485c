"""Tables: the newest value per key.

Rule of this module: a handle only adds nodes; it holds nothing but its position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, overload

from streamstate.functions import checked_supplier
from streamstate.serde import Serde
from streamstate.topology import grouped_table as _grouped
from streamstate.topology import stream as _stream
from streamstate.topology.draft import attached_stores
from streamstate.topology.emit import StreamEmit, checked_emit
from streamstate.topology.joined_tables import TableJoins
from streamstate.topology.names import checked
from streamstate.topology.processor import ValueTransformer
from streamstate.topology.rows import store_of
from streamstate.topology.specs import StoreSpec, ToStream
from streamstate.topology.suppressing import TimeLimit, WindowClose, buffer_store, suppress_spec
from streamstate.topology.table_specs import (
    TableFilter,
    TableGroupBy,
    TableMapValues,
    TableTransformValues,
)

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
T = TypeVar("T")


class Table(TableJoins[K, V]):
    """The newest value per key, and the stream of its changes (Kafka Streams: ``KTable``).

    Made by ``Topology.table`` and by aggregations. Operators on tables take ``store=``, to keep their result under
    that name, and ``name=``, their name in descriptions and errors.
    """

    __slots__ = ()

    @property
    def store(self) -> str | None:
        """Name of the store that holds the table as it is; None when it is computed from another one."""
        return store_of(self._at.draft, self._at.node)

    def __repr__(self) -> str:
        return f"<Table {self._at.node}{'' if self.store is None else f' in store {self.store}'}>"

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
        self._claim(self._at, store, "filter")
        return Table(self._at.then(TableFilter(predicate, store=store), "filter", name))

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
        self._claim(self._at, store, "filter_not")
        return Table(self._at.then(TableFilter(predicate, negate=True, store=store), "filter_not", name))

    @overload
    def map_values(
        self,
        function: Callable[[V], V2],
        *,
        value: Serde[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def map_values(
        self,
        function: Callable[[K, V], V2],
        *,
        value: Serde[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    def map_values(
        self,
        function: Callable[..., V2],
        *,
        value: Serde[V2] | None = None,
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
        self._claim(after, store, "map_values")
        at = self._at.then(TableMapValues(function, store, with_key), "map_values", name)
        return Table(at.with_new_value().with_serdes(None, value))

    def transform_values(
        self,
        supplier: Callable[[], ValueTransformer[K, V, V2]],
        *,
        stores: Sequence[StoreSpec | str] = (),
        value: Serde[V2] | None = None,
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
        uses = attached_stores(self._at.draft, stores, where)
        after = self._at.with_new_value().with_serdes(None, value)
        self._claim(after, store, "transform_values")
        spec = TableTransformValues(supplier, uses, self._at.key_serde("transform_values"), value, store)
        return Table(replace(self._at.then(spec, "transform_values", name), value=value))

    def group_by(
        self,
        function: Callable[[K, V], K2],
        *,
        key: Serde[K2],
        select: Callable[[K, V], Any] | None = None,
        value: Serde[Any] | None = None,
        name: str | None = None,
    ) -> _grouped.GroupedTable[K2, Any]:
        """Group rows by ``function(key, value)``, through a repartition topic (Kafka Streams: ``KTable.groupBy``).

        Rows of which the group's key or the selected value is None are in no group.

        Args:
            function: makes the key of the group a row is in.
            key: serde of that key.
            select: makes of (key, value) what is aggregated; by default the value.
            value: serde of what is aggregated; by default that of the rows.
            name: of the operator.

        Raises:
            TopologyError: a serde is not known, or the rows cannot be looked up.

        >>> from streamstate import Topology, serde
        >>> planes = Topology("t").table("planes", key=serde.string(), value=serde.json())
        >>> planes.group_by(lambda tail, plane: plane["model"], key=serde.string())
        <GroupedTable planes.table.group_by>
        """
        self._at.check(function, "group_by", "key, value")
        if select is not None:
            self._at.check(select, "group_by", "key, value", argument="select=")
        known = value if select is not None else value or self._at.value
        at = replace(self._at, key=key, value=known)
        at.key_serde("group_by")
        at.value_serde("group_by")
        spec = TableGroupBy(function, select, key, self._rows("group_by"))
        return _grouped.GroupedTable(at.then(spec, "group_by", name))

    def suppress(
        self,
        until: TimeLimit | WindowClose,
        *,
        max_records: int | None = None,
        max_bytes: int | None = None,
        when_full: Literal["emit", "stop"] | None = None,
        value: Serde[V] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V]:
        """Hold changes back, of each key only the newest (Kafka Streams: ``KTable.suppress``).

        What is held is in a changelogged store; its keys and their order are in memory.

        Args:
            until: ``time_limit(...)`` or ``window_close()``. Time is that of the changes that come here.
            max_records: most keys held; by default any number.
            max_bytes: of what is held, roughly; by default any number.
            when_full: ``emit`` sends the first ones early; ``stop`` stops the worker, and is the only choice for
                ``window_close()``, whose results are final.
            value: serde of the table's values; by default the one known.
            store: name of the store; it names the changelog topic.
            name: of the operator.

        Raises:
            TopologyError: a serde is not known, there are no windows that close, a limit is below 1, or the name is
                taken.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, window_close, windows
        >>> words = Topology("t").stream("words", key=serde.string()).group_by_key()
        >>> hourly = words.windowed_by(windows.tumbling(timedelta(hours=1))).count(store="hourly")
        >>> hourly.suppress(window_close(), max_records=1_000_000, store="open-hours")
        <Table open-hours.suppress>
        """
        at = self._at.with_serdes(None, value)
        spec = suppress_spec(at, until, max_records, max_bytes, when_full)
        if store is None:
            store = at.draft.lasting_name(at.node, "suppress", "store")
            name = name or store
        name = name or f"{checked(store, 'name of a store')}.suppress"
        at.draft.claim_store(
            buffer_store(
                store,
                spec.key,
                at.value_serde("suppress"),
                "changes held until " + ("windows close" if spec.by_window else "a time limit"),
            )
        )
        return Table(at.then(replace(spec, store=store), "suppress", name))

    def to_stream(self, *, emit: StreamEmit = "update", name: str | None = None) -> _stream.Stream[K, V]:
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
            self._rows("to_stream")
        spec = ToStream(self._at.key_serde("to_stream"), emit, self._at.value)
        return _stream.Stream(self._at.then(spec, "to_stream", name))


def looked_up(table: Table[Any, Any], kind: str) -> tuple[str, tuple[str, ...]]:
    """The node of a table and the stores in which an operator finds its rows; see ``rows_of``."""
    return table._at.node, table._rows(kind)
