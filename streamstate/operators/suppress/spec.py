"""Holding changes of a table back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from streamstate.graph.builder import GraphBuilder
from streamstate.graph.node import Graph, Node
from streamstate.graph.queries import policy_behind
from streamstate.graph.spec import Facts
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.due_results import each_by_itself
from streamstate.operators.base.forwarding import Change
from streamstate.operators.base.rows import Getter
from streamstate.operators.base.tables import TableSpec, TakesChanges, entered, materialized, rows
from streamstate.operators.suppress.runtime import Suppressor
from streamstate.serde import Serde

__all__ = ["Suppress"]


@dataclass(frozen=True, slots=True)
class Suppress(TableSpec, TakesChanges):
    """Holds changes of a table back.

    Attributes:
        store: what is held.
        key: serde of the table's keys.
        wait_ms: how much stream time after its own a change is let go; None: only when it is full.
        by_window: a change's own time is the end of its window, and deletions are left out; else its timestamp.
        max_records, max_bytes: None: no limit.
        when_full: ``emit`` sends the first ones early, ``stop`` stops the worker.
    """

    operator: ClassVar[str] = "suppress"

    store: str
    key: Serde[Any]
    wait_ms: int | None
    by_window: bool
    max_records: int | None
    max_bytes: int | None
    when_full: Literal["emit", "stop"]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.store,)

    @property
    def shown_store(self) -> str | None:
        """None: its store has what the table does not show yet."""
        return None

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """How long and how much it holds back."""
        return {
            "until": "window_close" if self.by_window else "time_limit",
            "wait_ms": self.wait_ms,
            "max_records": self.max_records,
            "max_bytes": self.max_bytes,
            "when_full": self.when_full,
        }

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same."""
        parts = [self.operator]
        parts.append("no time limit" if self.wait_ms is None else f"until {facts['until']} and {self.wait_ms} ms")
        for limit in ("max_records", "max_bytes"):
            if facts[limit] is not None:
                parts.append(f"{limit} {facts[limit]}, then {self.when_full}")
        return parts

    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Its store, and those of the parent."""
        return (*self.stores, *materialized(builder, builder.nodes[node].parents[0], asked_by))

    def gives_old(self, graph: Graph, node: Node) -> bool:
        """What was let go last is held too."""
        return True

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """Rows as they were let go: of what is held back, as it was before."""
        held = self._suppressor(compilation, node)
        rows_below = rows(compilation, node.parents[0], asked_by)

        def row(key: Any) -> tuple[Any, int] | None:
            try:
                return held.row(key)
            except LookupError:
                return rows_below(key)

        return row

    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """To say what was so before the first change held."""
        return True

    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """They are held back as all others."""
        return entered(compilation, node, parent)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """One Suppressor."""
        operator = self._suppressor(compilation, node)
        context, undo = compilation.context, compilation.undo
        policy = policy_behind(compilation.graph, node.name)
        operator.forward = each_by_itself(compilation.change(node), self.key.serialize, context, undo, policy)
        compilation.task.processors.append(operator)
        compilation.tables[node.name] = operator.change

    def _suppressor(self, compilation: Compilation, node: Node) -> Suppressor:
        """The one of ``node``; whoever looks into it comes before it."""
        operator: Suppressor | None = compilation.looked_into.get(node.name)
        if operator is None:
            store = compilation.stores[self.store]
            operator = Suppressor(node.name, self, store, compilation.context, compilation.undo)
            compilation.looked_into[node.name] = operator
        return operator
