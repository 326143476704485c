"""Joins of two tables with equal keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from streamstate.graph.builder import GraphBuilder
from streamstate.graph.node import Graph, Node
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.forwarding import Change, fan_out_changes
from streamstate.operators.base.joiners import from_right
from streamstate.operators.base.rows import Getter, rows_in, rows_kept
from streamstate.operators.base.tables import TableSpec, TakesChanges, leave_out, named, needs_old, rows
from streamstate.operators.table_join import runtime

__all__ = ["TableJoin"]


@dataclass(frozen=True, slots=True)
class TableJoin(TableSpec, TakesChanges):
    """The rows of two tables under equal keys.

    Attributes:
        left, right: the tables' nodes.
        looked_up: the stores in which their rows are found.
        joiner: (left value, right value) to the result; None where a row is missing.
        left_alone: a left row without a right one makes a row too.
        right_alone: and the other way round.
        store: keeps the result; None: it is computed from both.
        with_key: ``joiner`` takes the key too, in front.
    """

    operator: ClassVar[str] = "table_join"

    left: str
    right: str
    looked_up: tuple[str, ...]
    joiner: Callable[..., Any]
    left_alone: bool = False
    right_alone: bool = False
    store: str | None = None
    with_key: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return tuple(dict.fromkeys((*named(self.store), *self.looked_up)))

    @property
    def shown_store(self) -> str | None:
        """Its store, if it has one."""
        return self.store

    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Its store, or those of both tables."""
        return self.stores if self.store is None else (self.store,)

    def gives_old(self, graph: Graph, node: Node) -> bool:
        """The old row is joined too."""
        return True

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """From its store, or joined when they are asked for."""
        if self.store is not None:
            return rows_in(asked_by, compilation.stores[self.store])
        left, right = rows(compilation, self.left, asked_by), rows(compilation, self.right, asked_by)
        return runtime.rows_joined(
            asked_by,
            self.joiner,
            left,
            right,
            left_alone=self.left_alone,
            right_alone=self.right_alone,
            with_key=self.with_key,
        )

    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """To delete a result that only one row made; and for what is behind it, unless the result is kept."""
        if (self.left_alone and parent == self.left) or (self.right_alone and parent == self.right):
            return True
        return self.store is None and needs_old(graph, node.name)

    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """The newest row has been joined already."""
        return leave_out(compilation)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """An entry for each side; see ``runtime.side``."""
        name, joiner, forward = node.name, self.joiner, compilation.change(node)
        asked = needs_old(compilation.graph, name)
        if self.store is not None:
            forward = rows_kept(name, compilation.stores[self.store], forward, needs_old=asked)
            asked = False
        left = runtime.side(
            name,
            joiner,
            rows(compilation, self.right, name),
            forward,
            mine_alone=self.left_alone,
            other_alone=self.right_alone,
            needs_old=asked,
            with_key=self.with_key,
        )
        right = runtime.side(
            name,
            from_right(joiner, self.with_key),
            rows(compilation, self.left, name),
            forward,
            mine_alone=self.right_alone,
            other_alone=self.left_alone,
            needs_old=asked,
            with_key=self.with_key,
        )
        if self.left == self.right:
            compilation.tables[name] = fan_out_changes([left, right])
            return
        compilation.sides[name, self.left] = left
        compilation.sides[name, self.right] = right
