"""Aggregations of a stream per key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from streamstate.errors import TopologyError
from streamstate.graph.builder import GraphBuilder
from streamstate.graph.node import Node
from streamstate.operators.aggregate import runtime
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.forwarding import stamped
from streamstate.operators.base.rows import Getter, rows_in
from streamstate.operators.base.tables import KeptTable, needs_old

__all__ = ["Aggregate", "Count", "Reduce"]


class _Aggregation(KeptTable):
    __slots__ = ()

    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Its store, unless rows that end unseen would be missed."""
        if asked_by == "group_by" and builder.stores[self.store].ttl_ms is not None:
            raise TopologyError(
                f"group_by after {node!r} takes the old row out of its group, but rows in the store {self.store!r} "
                "expire and would stay in theirs for ever: leave out ttl=, or use windows"
            )
        return (self.store,)


@dataclass(frozen=True, slots=True)
class Count(_Aggregation):
    """Counts records per key. Emits table changes."""

    operator: ClassVar[str] = "count"

    store: str

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.count``."""
        store = compilation.stores[self.store]
        compilation.streams[node.name] = runtime.count(node.name, store, compilation.context, compilation.change(node))


@dataclass(frozen=True, slots=True)
class Reduce(_Aggregation):
    """Folds values per key, the first value being the start. Emits table changes."""

    operator: ClassVar[str] = "reduce"

    store: str
    function: Callable[[Any, Any], Any]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.reduce``."""
        compilation.streams[node.name] = runtime.reduce(
            node.name,
            self,
            compilation.stores[self.store],
            compilation.context,
            compilation.change(node),
            needs_old=needs_old(compilation.graph, node.name),
        )


@dataclass(frozen=True, slots=True)
class Aggregate(_Aggregation):
    """Folds (key, value, aggregate) per key. Emits table changes.

    Attributes:
        result: what the table shows of the stored aggregate; None: the aggregate itself.
        timed: the aggregator takes (key, (value, event time), aggregate).
        others: aggregators of the further parents, of a cogroup.
    """

    operator: ClassVar[str] = "aggregate"

    store: str
    initializer: Callable[[], Any]
    aggregator: Callable[[Any, Any, Any], Any]
    result: Callable[[Any], Any] | None = None
    timed: bool = False
    others: tuple[Callable[[Any, Any, Any], Any], ...] = ()

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """From its store, as the table shows them."""
        return rows_in(asked_by, compilation.stores[self.store], self.result)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """An entry for each parent; see ``runtime.aggregate``."""
        store, forward = compilation.stores[self.store], compilation.change(node)
        asked = needs_old(compilation.graph, node.name)
        for parent, aggregator in zip(node.parents, (self.aggregator, *self.others), strict=True):
            one = replace(self, aggregator=aggregator)
            entry = runtime.aggregate(node.name, one, store, compilation.context, forward, needs_old=asked)
            compilation.sides[node.name, parent] = stamped(entry) if self.timed else entry
