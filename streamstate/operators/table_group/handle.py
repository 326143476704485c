"""Grouped tables: what count, reduce and aggregate of a table's rows are called on.

Rule of this module: as of ``grouped``. Each aggregation reads the changes of its groups through its own repartition
topic, named after its store, whatever the new key is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeVar

from streamstate.errors import TopologyError
from streamstate.functions import by_field, own_initial
from streamstate.graph.handles import Handle, table_at
from streamstate.graph.names import checked
from streamstate.graph.spec import OperatorSpec
from streamstate.operators.base.tables import materialized
from streamstate.operators.table_group.spec import TableAggregate, TableGroupBy, TableReduce
from streamstate.operators.topics.build import through_repartition
from streamstate.serde import Serde, SerdeLike, known_serde, long, serde_of
from streamstate.state.spec import StoreSpec

if TYPE_CHECKING:
    from streamstate.dsl.table import Table

__all__ = ["GroupedTable", "TableGrouping", "change_serde"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
A = TypeVar("A")


class GroupedTable(Handle[K, V]):
    """Rows of a table by group (Kafka Streams: ``KGroupedTable``). Made by ``Table.group_by``.

    When a row changes, its old value is taken off the aggregate of the group it was in, then its new value is added to
    that of the group it is in: in one step where that is the same group, in two records where it is not. Between
    those two, which other tasks may process at other times, the row is in no group.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<GroupedTable {self._at.node}>"

    def count(self, *, store: str | None = None) -> Table[K, int]:
        """Count the rows of each group; a group that became empty has 0 (Kafka Streams: ``KGroupedTable.count``).

        Args:
            store: name of the store; it names the changelog topic.

        Raises:
            TopologyError: the store's name is taken, illegal or cannot be generated.

        >>> from streamstate import Topology, serde
        >>> planes = Topology("t").table("planes", key=serde.string(), value=serde.json())
        >>> planes.group_by(lambda tail, plane: plane["model"], key=serde.string()).count(store="fleet")
        <Table fleet.count in store fleet>
        """
        return self._fold("count", store, long(), lambda name: TableAggregate(name, int, _one_more, _one_less))

    def reduce(
        self,
        adder: Callable[[V, V], V],
        subtractor: Callable[[V, V], V],
        *,
        store: str | None = None,
        value: SerdeLike[V] | None = None,
    ) -> Table[K, V]:
        """Fold the values of each group, the first being the start (Kafka Streams: ``KGroupedTable.reduce``).

        Args:
            adder: (aggregate, new value) to the next aggregate.
            subtractor: (aggregate, old value) to the aggregate without it.
            store: name of the store; it names the changelog topic.
            value: serde of the store's value; by default that of the rows.

        Raises:
            TopologyError: as for ``count``, or the value's serde is not known.

        >>> from operator import add, sub
        >>> from streamstate import Topology, serde
        >>> seats = Topology("t").table("seats", key=serde.string(), value=serde.long())
        >>> seats.group_by(lambda tail, seats: tail[:2], key=serde.string()).reduce(add, sub, store="total")
        <Table total.reduce in store total>
        """
        for name, function in (("adder", adder), ("subtractor", subtractor)):
            self._at.check(function, "reduce", "aggregate, value", argument=name)
        kept = known_serde(value, "value= of reduce") or self._at.value_serde("reduce")
        return self._fold("reduce", store, kept, lambda name: TableReduce(name, adder, subtractor))

    def aggregate(
        self,
        initializer: Callable[[], A],
        adder: Callable[[K, V, A], A],
        subtractor: Callable[[K, V, A], A],
        *,
        value: SerdeLike[A],
        store: str | None = None,
    ) -> Table[K, A]:
        """Fold the rows of each group (Kafka Streams: ``KGroupedTable.aggregate``).

        Args:
            initializer: makes the aggregate of a group before its first row.
            adder: (key, new value, aggregate) to the next aggregate.
            subtractor: (key, old value, aggregate) to the aggregate without it.
            value: serde of the aggregate.
            store: name of the store; it names the changelog topic.

        Raises:
            TopologyError: as for ``count``.

        >>> from streamstate import Topology, serde
        >>> planes = Topology("t").table("planes", key=serde.string(), value=serde.json())
        >>> by_model = planes.group_by(lambda tail, plane: plane["model"], key=serde.string())
        >>> by_model.aggregate(
        ...     initializer=int,
        ...     adder=lambda model, plane, seats: seats + plane["seats"],
        ...     subtractor=lambda model, plane, seats: seats - plane["seats"],
        ...     value=int,
        ...     store="seats",
        ... )
        <Table seats.aggregate in store seats>
        """
        self._at.check(initializer, "aggregate", "", argument="initializer")
        initial = own_initial(initializer)
        for name, function in (("adder", adder), ("subtractor", subtractor)):
            self._at.check(function, "aggregate", "key, value, aggregate", argument=name)
        if value is None:
            raise TopologyError(
                f"aggregate after {self._at.node!r} needs the serde of the aggregate: pass value=, such as "
                "value=serde.json()"
            )
        kept = serde_of(value, f"value= of aggregate after {self._at.node!r}")
        return self._fold("aggregate", store, kept, lambda name: TableAggregate(name, initial, adder, subtractor))

    def _fold(
        self, kind: str, store: str | None, kept: Serde[Any], spec: Callable[[str], OperatorSpec]
    ) -> Table[K, Any]:
        at = self._at
        key, value = at.key_serde("group_by"), at.value_serde("group_by")
        if store is None:
            store = node = at.builder.lasting_name(at.node, kind, "store")
        else:
            node = f"{checked(store, 'name of a store')}.{kind}"
        at.builder.claim_store(StoreSpec(store, key, kept, content=f"{kind} of a grouped table"))
        at = through_repartition(replace(at, value=change_serde(value)), store, "group_by")
        return table_at(replace(at.then(spec(store), kind, node), value=kept))


class TableGrouping(Handle[K, V]):
    """``Table.group_by``."""

    __slots__ = ()

    def group_by(
        self,
        function: str | Callable[[K, V], K2],
        *,
        key: SerdeLike[K2] | None = None,
        select: Callable[[K, V], Any] | None = None,
        value: SerdeLike[Any] | None = None,
        name: str | None = None,
    ) -> GroupedTable[K2, Any]:
        """Group rows by ``function(key, value)``, through a repartition topic (Kafka Streams: ``KTable.groupBy``).

        Rows of which the group's key or the selected value is None are in no group.

        Args:
            function: makes the key of the group a row is in; or the name of a field of the value.
            key: serde of that key; by default that of the topology.
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
        chosen = by_field(function)
        self._at.check(chosen, "group_by", "key, value")
        if select is not None:
            self._at.check(select, "group_by", "key, value", argument="select=")
        before = (self._at if select is None else self._at.with_new_value()).with_new_key()
        before = replace(before, key_changed=self._at.key_changed)
        at = before.with_serdes(key, value)
        at.key_serde("group_by")
        at.value_serde("group_by")
        spec = TableGroupBy(chosen, select, at.key_serde("group_by"), materialized(at.builder, at.node, "group_by"))
        return GroupedTable(at.then(spec, "group_by", name))


def _one_more(key: Any, value: Any, count: int) -> int:
    return count + 1


def _one_less(key: Any, value: Any, count: int) -> int:
    return count - 1


_HEAD = Struct(">BI")
_NEW, _OLD = 1, 2


def change_serde(value: SerdeLike[Any]) -> Serde[tuple[Any, Any]]:
    """A row's (new value, old value), either of them None, as it goes through a repartition topic.

    A byte that says which of them are there, the length of the new one in four bytes, the new one, the old one.

    >>> from streamstate import serde
    >>> change = change_serde(serde.string())
    >>> change.serialize(("new", None)), change.deserialize(change.serialize((None, "old")))
    (b'\\x01\\x00\\x00\\x00\\x03new', (None, 'old'))
    """

    def serialize(change: tuple[Any, Any]) -> bytes:
        new, old = change
        after, before = value.encode(new) or b"", value.encode(old) or b""
        there = (0 if new is None else _NEW) | (0 if old is None else _OLD)
        return _HEAD.pack(there, len(after)) + after + before

    def deserialize(data: bytes) -> tuple[Any, Any]:
        there, length = _HEAD.unpack_from(data)
        end = _HEAD.size + length
        return (
            value.deserialize(data[_HEAD.size : end]) if there & _NEW else None,
            value.deserialize(data[end:]) if there & _OLD else None,
        )

    return Serde(f"change({value.name})", serialize, deserialize, schema=value.schema)
