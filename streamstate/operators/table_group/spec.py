"""Groups of a table's rows, and aggregations of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from streamstate.graph.node import Graph, Node
from streamstate.graph.spec import SpecDefaults
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.forwarding import Change
from streamstate.operators.base.tables import KeptTable, TakesChanges, leave_out, needs_old
from streamstate.operators.table_group import runtime
from streamstate.serde import Serde

__all__ = ["TableAggregate", "TableGroupBy", "TableReduce"]


@dataclass(frozen=True, slots=True)
class TableGroupBy(SpecDefaults, TakesChanges):
    """Changes of rows as changes of the groups they belong to: a stream of (new value, old value) per group's key.

    Attributes:
        function: (key, value) to the key of the group.
        select: (key, value) to what is aggregated; None: the value.
        key: serde of the group's key, whose bytes say whether a row has stayed in its group.
        stores: what old rows are found in.
    """

    operator: ClassVar[str] = "table_group_by"

    function: Callable[[Any, Any], Any]
    select: Callable[[Any, Any], Any] | None
    key: Serde[Any]
    stores: tuple[str, ...]

    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """To take the old row out of its group."""
        return True

    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """The newest row is in its group already."""
        return leave_out(compilation)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.group_by``."""
        compilation.tables[node.name] = runtime.group_by(node.name, self, compilation.forward(node))


class _Fold(KeptTable):
    __slots__ = ()

    @abstractmethod
    def fold(self) -> Callable[[Any, Any, Any, Any], Any]:
        """(key, new value, old value, state) to the next state."""

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.folded``."""
        asked = needs_old(compilation.graph, node.name)
        compilation.streams[node.name] = runtime.folded(
            node.name, self.fold(), compilation.stores[self.store], compilation.change(node), needs_old=asked
        )


@dataclass(frozen=True, slots=True)
class TableReduce(_Fold):
    """Folds the values of the rows of each group, the first being the start; old values are taken off first."""

    operator: ClassVar[str] = "table_reduce"

    store: str
    adder: Callable[[Any, Any], Any]
    subtractor: Callable[[Any, Any], Any]

    def fold(self) -> Callable[[Any, Any, Any, Any], Any]:
        """See ``runtime.reduce``."""
        return runtime.reduce(self)


@dataclass(frozen=True, slots=True)
class TableAggregate(_Fold):
    """Folds (key, value, aggregate) of the rows of each group; old values are taken off first."""

    operator: ClassVar[str] = "table_aggregate"

    store: str
    initializer: Callable[[], Any]
    adder: Callable[[Any, Any, Any], Any]
    subtractor: Callable[[Any, Any, Any], Any]

    def fold(self) -> Callable[[Any, Any, Any, Any], Any]:
        """See ``runtime.aggregate``."""
        return runtime.aggregate(self)
