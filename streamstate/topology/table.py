"""Tables: the newest value per key.

Rule of this module: a handle only adds nodes; it holds nothing but its position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from streamstate.errors import TopologyError
from streamstate.serde import Serde
from streamstate.topology import stream as _stream
from streamstate.topology.draft import Position, checked_function
from streamstate.topology.names import checked
from streamstate.topology.rows import rows_of, store_of
from streamstate.topology.specs import Emit, StoreSpec, ToStream
from streamstate.topology.table_specs import TableFilter, TableMapValues

K = TypeVar("K")
V = TypeVar("V")
V2 = TypeVar("V2")


class Table(Generic[K, V]):
    """The newest value per key, and the stream of its changes (Kafka Streams: ``KTable``).

    Made by ``Topology.table`` and by aggregations. Operators on tables take ``store=``, to keep their result under
    that name, and ``name=``, their name in descriptions and errors.
    """

    __slots__ = ("_at",)

    def __init__(self, at: Position) -> None:
        self._at = at

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
        checked_function(predicate, "filter", self._at.node)
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
        checked_function(predicate, "filter_not", self._at.node)
        self._claim(self._at, store, "filter_not")
        return Table(self._at.then(TableFilter(predicate, negate=True, store=store), "filter_not", name))

    def map_values(
        self,
        function: Callable[[V], V2],
        *,
        value: Serde[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]:
        """Replace each row's value by ``function(value)`` (Kafka Streams: ``KTable.mapValues``).

        The function is called again wherever a row is looked up, unless the result is kept in a store; it must not
        change the value it is given.

        Args:
            function: is not called for deletions, which are passed on.
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
        checked_function(function, "map_values", self._at.node)
        after = self._at.with_new_value().with_serdes(None, value)
        self._claim(after, store, "map_values")
        at = self._at.then(TableMapValues(function, store), "map_values", name)
        return Table(at.with_new_value().with_serdes(None, value))

    def to_stream(self, *, emit: Emit = "update", name: str | None = None) -> _stream.Stream[K, V]:
        """The table's changes as a stream (Kafka Streams: ``KTable.toStream``).

        Args:
            emit: ``update`` sends every change; ``commit`` sends, at each commit, only the newest value of each
                key that changed since the last one.
            name: of the operator.

        Raises:
            TopologyError: another ``emit``.

        >>> from streamstate import Topology, serde
        >>> counts = Topology("t").stream("words", key=serde.string()).group_by_key().count(store="counts")
        >>> counts.to_stream(emit="commit").to("word-counts")
        """
        if emit not in ("update", "commit"):
            raise TopologyError(f"to_stream after {self._at.node!r} takes emit='update' or 'commit', not {emit!r}")
        return _stream.Stream(self._at.then(ToStream(self._at.key_serde("to_stream"), emit), "to_stream", name))

    def _rows(self, kind: str) -> tuple[str, ...]:
        return rows_of(self._at.draft, self._at.node, kind)

    @staticmethod
    def _claim(at: Position, store: str | None, kind: str) -> None:
        if store is not None:
            key, value = at.key_serde(kind), at.value_serde(kind)
            at.draft.claim_store(StoreSpec(checked(store, "name of a store"), key, value))


def looked_up(table: Table[Any, Any], kind: str) -> tuple[str, tuple[str, ...]]:
    """The node of a table and the stores in which an operator finds its rows; see ``rows_of``."""
    return table._at.node, table._rows(kind)
