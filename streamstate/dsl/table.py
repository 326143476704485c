"""The handle of tables: the operators of all families that begin with a table."""

from __future__ import annotations

from typing import TypeVar

from streamstate.operators.base.tables import shown_store
from streamstate.operators.suppress.handle import Suppression
from streamstate.operators.table.handle import RowOperators
from streamstate.operators.table_group.handle import TableGrouping
from streamstate.operators.table_join.handle import TableJoins

__all__ = ["Table"]

K = TypeVar("K")
V = TypeVar("V")


class Table(RowOperators[K, V], TableGrouping[K, V], TableJoins[K, V], Suppression[K, V]):
    """The newest value per key, and the stream of its changes (Kafka Streams: ``KTable``).

    Made by ``Topology.table`` and by aggregations. Operators on tables take ``store=``, to keep their result under
    that name, and ``name=``, their name in descriptions and errors.
    """

    __slots__ = ()

    @property
    def store(self) -> str | None:
        """Name of the store that holds the table as it is; None when it is computed from another one."""
        return shown_store(self._at.builder, self._at.node)

    def __repr__(self) -> str:
        return f"<Table {self._at.node}{'' if self.store is None else f' in store {self.store}'}>"
