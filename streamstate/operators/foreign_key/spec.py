"""Foreign-key joins of tables: four operators, two in the tasks of each table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from streamstate.graph.builder import GraphBuilder
from streamstate.graph.node import Graph, Node
from streamstate.graph.spec import SpecDefaults
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.forwarding import Change, fan_out
from streamstate.operators.base.rows import Getter, rows_in, rows_kept
from streamstate.operators.base.tables import (
    TableSpec,
    TakesChanges,
    leave_out,
    named,
    needs_old,
    result_store,
    rows,
)
from streamstate.operators.foreign_key import runtime
from streamstate.serde import Serde

__all__ = ["ForeignKeyChange", "ForeignKeyResult", "ForeignKeySend", "ForeignKeySubscribe"]


@dataclass(frozen=True, slots=True)
class ForeignKeySend(SpecDefaults, TakesChanges):
    """Left side of a foreign-key join: says to the task that owns the right key which left rows want its row.

    Attributes:
        function: (key, value) to the right table's key, or None.
        key, value: serdes of the left table.
        foreign: serde of the right table's key.
        left: rows without a right one make a result too.
        stores: what old rows are found in.
    """

    operator: ClassVar[str] = "foreign_key_send"

    function: Callable[[Any, Any], Any]
    key: Serde[Any]
    value: Serde[Any]
    foreign: Serde[Any]
    left: bool
    stores: tuple[str, ...]

    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """To see whether the foreign key has changed."""
        return True

    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """The newest row has asked already."""
        return leave_out(compilation)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.send``."""
        graph = compilation.graph
        children = graph.children(node.name)
        (result,) = [child for child in children if isinstance(graph.nodes[child].spec, ForeignKeyResult)]
        ask = fan_out([compilation.streams[child] for child in children if child != result])
        answer: Any = compilation.sides[result, node.name]
        compilation.tables[node.name] = runtime.send(node.name, self, compilation.context, ask, answer)


@dataclass(frozen=True, slots=True)
class ForeignKeySubscribe(SpecDefaults):
    """Right side: keeps who wants a row, and answers with the row as it is.

    Attributes:
        right: node of the right table.
        subscriptions: store of who wants what.
        foreign: serde of the right table's key.
        key: serde of the left table's key.
        looked_up: what the right rows are found in.
    """

    operator: ClassVar[str] = "foreign_key_subscribe"

    right: str
    subscriptions: str
    foreign: Serde[Any]
    key: Serde[Any]
    looked_up: tuple[str, ...]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.subscriptions, *self.looked_up)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.subscribe``."""
        row = rows(compilation, self.right, node.name)
        store = compilation.stores[self.subscriptions]
        compilation.streams[node.name] = runtime.subscribe(node.name, self, store, row, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class ForeignKeyChange(SpecDefaults, TakesChanges):
    """Right side: sends a changed row to all who want it. Attributes as of ``ForeignKeySubscribe``."""

    operator: ClassVar[str] = "foreign_key_change"

    subscriptions: str
    foreign: Serde[Any]
    key: Serde[Any]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.subscriptions,)

    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """Everyone who wants the row is sent the new one."""
        return False

    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """The newest row has been sent already."""
        return leave_out(compilation)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.change``."""
        store = compilation.stores[self.subscriptions]
        compilation.tables[node.name] = runtime.change(node.name, self, store, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class ForeignKeyResult(TableSpec):
    """Left side: joins answers with the left row, if it is still the one that asked.

    Attributes:
        table: node of the left table.
        send: node that asks.
        joiner: (left value, right value or None) to the result.
        left: rows without a right one make a result too.
        key: serde of the left table's key.
        asked: serde of the left table's values.
        value: serde of the result; unknown while there is no store.
        looked_up: what the left rows are found in.
        store: keeps the result; None while nothing needs its rows.
        with_key: ``joiner`` takes the left row's key too, in front.
    """

    operator: ClassVar[str] = "foreign_key_result"

    table: str
    send: str
    joiner: Callable[..., Any]
    left: bool
    key: Serde[Any]
    asked: Serde[Any]
    value: Serde[Any] | None
    looked_up: tuple[str, ...]
    store: str | None = None
    with_key: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (*named(self.store), *self.looked_up)

    @property
    def shown_store(self) -> str | None:
        """Its store, if it has one."""
        return self.store

    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Its store: the right row of a foreign key is in another task."""
        if self.store is not None:
            return (self.store,)
        builder.claim_store(result_store(node, self.key, self.value, asked_by, "the join", "a foreign-key join"))
        builder.replace(node, replace(self, store=node))
        return (node,)

    def gives_old(self, graph: Graph, node: Node) -> bool:
        """Where it has a store."""
        return self.store is not None

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """From its store."""
        assert self.store is not None, f"the table {node.name!r} was asked for rows and has no store"
        return rows_in(asked_by, compilation.stores[self.store])

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.result``."""
        forward = compilation.change(node)
        if self.store is not None:
            asked = needs_old(compilation.graph, node.name)
            forward = rows_kept(node.name, compilation.stores[self.store], forward, needs_old=asked)
        row = rows(compilation, self.table, node.name)
        compilation.streams[node.name], compilation.sides[node.name, self.send] = runtime.result(
            node.name, self, row, compilation.context, forward
        )
