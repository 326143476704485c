"""Joins of tables with tables, by key or by a foreign key.

Rule of this module: as of ``table``, of whose handle it is a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from streamstate.functions import by_field
from streamstate.graph.builder import same_builder
from streamstate.graph.error_policy import FAIL
from streamstate.graph.handles import Handle, is_table, table_at
from streamstate.graph.wrong_handle import wrong_kind
from streamstate.operators.base.tables import claim_result_store, materialized
from streamstate.operators.foreign_key.build import join_by_foreign_key
from streamstate.operators.table_join.spec import TableJoin
from streamstate.serde import SerdeLike, known_serde

if TYPE_CHECKING:
    from streamstate.dsl.table import Table

__all__ = ["TableJoins"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
T = TypeVar("T")


class TableJoins(Handle[K, V]):
    """The joins of ``Table``."""

    __slots__ = ()

    @overload
    def join(
        self,
        other: Table[K, T],
        joiner: Callable[[V, T], V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def join(
        self,
        other: Table[K, T],
        joiner: Callable[[K, V, T], V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def join(
        self,
        other: Table[K2, T],
        joiner: Callable[[V, T], V2],
        *,
        foreign_key: str | Callable[[K, V], K2 | None],
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def join(
        self,
        other: Table[K2, T],
        joiner: Callable[[K, V, T], V2],
        *,
        foreign_key: str | Callable[[K, V], K2 | None],
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    def join(
        self,
        other: Table[Any, T],
        joiner: Callable[..., V2],
        *,
        foreign_key: str | Callable[[K, V], Any] | None = None,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]:
        """The rows that both tables have, joined (Kafka Streams: ``KTable.join``).

        A change of either table makes a change of the result, whose timestamp is the greater of the two rows'. The
        tables must have equally many partitions.

        With ``foreign_key``, a left row is joined with the right row whose key that function gives; any number of left
        rows may want the same one, and the tables may have different numbers of partitions. Each left row asks the
        task that has the right row through an internal topic and is answered through another, so results come a
        little later; those of a left row that has changed meanwhile are left out. Rows of which the foreign key is
        None have no result. Deleting a left row, or moving it to another right row, sends a deletion even where
        there was no result.

        Args:
            other: the right table.
            joiner: (left value, right value) to the value of the result, or (left key, left value, right value): how
                many parameters it has decides. It must not change what it is given.
            foreign_key: (key, value) of a left row to the key of the right row, or None; or the name of a field of the
                left value.
            value: serde of the result, needed with ``store``.
            store: keep the result in a store of this name; by default it is computed where it is looked up.
            name: of the operator.

        Raises:
            TopologyError: ``store`` is given and a serde is not known, or the tables are of different topologies.

        >>> from streamstate import Topology, serde
        >>> topology = Topology("t")
        >>> names = topology.table("names", key=serde.string(), value=serde.string())
        >>> ages = topology.table("ages", key=serde.string(), value=serde.long())
        >>> names.join(ages, lambda name, age: f"{name}, {age}")
        <Table names.table.join>
        >>> flights = topology.table("latest-flights", key=serde.string(), value=serde.json())
        >>> airlines = topology.table("airlines", key=serde.string(), value=serde.string())
        >>> flights.join(airlines, lambda flight, name: name, foreign_key=lambda tail, flight: flight["carrier"])
        <Table latest-flights.table.join>
        """
        return self._join(other, joiner, "join", (False, False), value, store, name, foreign_key)

    @overload
    def left_join(
        self,
        other: Table[K, T],
        joiner: Callable[[V, T | None], V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def left_join(
        self,
        other: Table[K, T],
        joiner: Callable[[K, V, T | None], V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def left_join(
        self,
        other: Table[K2, T],
        joiner: Callable[[V, T | None], V2],
        *,
        foreign_key: str | Callable[[K, V], K2 | None],
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def left_join(
        self,
        other: Table[K2, T],
        joiner: Callable[[K, V, T | None], V2],
        *,
        foreign_key: str | Callable[[K, V], K2 | None],
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    def left_join(
        self,
        other: Table[Any, T],
        joiner: Callable[..., V2],
        *,
        foreign_key: str | Callable[[K, V], Any] | None = None,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]:
        """As ``join``, and the left rows without a right one (Kafka Streams: ``KTable.leftJoin``).

        With ``foreign_key`` that includes those of which the foreign key is None.

        >>> from streamstate import Topology, serde
        >>> topology = Topology("t")
        >>> names = topology.table("names", key=serde.string(), value=serde.string())
        >>> ages = topology.table("ages", key=serde.string(), value=serde.long())
        >>> names.left_join(ages, lambda name, age: (name, age), store="people", value=serde.json())
        <Table names.table.left_join in store people>
        """
        return self._join(other, joiner, "left_join", (True, False), value, store, name, foreign_key)

    @overload
    def outer_join(
        self,
        other: Table[K, T],
        joiner: Callable[[V | None, T | None], V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    @overload
    def outer_join(
        self,
        other: Table[K, T],
        joiner: Callable[[K, V | None, T | None], V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]: ...

    def outer_join(
        self,
        other: Table[K, T],
        joiner: Callable[..., V2],
        *,
        value: SerdeLike[V2] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V2]:
        """As ``join``, and the rows that only one table has (Kafka Streams: ``KTable.outerJoin``).

        >>> from streamstate import Topology, serde
        >>> topology = Topology("t")
        >>> names = topology.table("names", key=serde.string(), value=serde.string())
        >>> ages = topology.table("ages", key=serde.string(), value=serde.long())
        >>> names.outer_join(ages, lambda name, age: (name, age))
        <Table names.table.outer_join>
        """
        return self._join(other, joiner, "outer_join", (True, True), value, store, name, None)

    def _join(
        self,
        other: Table[Any, Any],
        joiner: Callable[..., Any],
        kind: str,
        alone: tuple[bool, bool],
        value: SerdeLike[Any] | None,
        store: str | None,
        name: str | None,
        foreign_key: str | Callable[[Any, Any], Any] | None,
    ) -> Table[K, Any]:
        left = self._at
        with_key = left.takes_key(joiner, kind, "left value", "right value")
        if not is_table(other):
            raise wrong_kind(f"{kind} after {left.node!r}", "Table", other)
        right = other._at
        same_builder(left.builder, right.builder, kind)
        mine, others = materialized(left.builder, left.node, kind), materialized(right.builder, right.node, kind)
        result = known_serde(value, f"value= of {kind} after {left.node!r}")
        after = replace(left, value=result)
        claim_result_store(after, store, kind)
        if foreign_key is not None:
            chosen = by_field(foreign_key)
            left.check(chosen, kind, "key, value", argument="foreign_key=")
            at = join_by_foreign_key(
                left, right, (mine, others), chosen, joiner, kind=kind, value=result, store=store, name=name,
                with_key=with_key,
            )  # fmt: skip
            return table_at(at)
        rows = tuple(dict.fromkeys((*mine, *others)))
        spec = TableJoin(left.node, right.node, rows, joiner, *alone, store, with_key)
        node = left.builder.add(spec, tuple(dict.fromkeys((left.node, right.node))), kind, name)
        policy = left.on_error if left.on_error == right.on_error else FAIL
        return table_at(replace(after, node=node, on_error=policy))
