"""What the specs of tables have, so that operators can find and compare rows without knowing which table it is.

A table gets a store only when something needs its rows, and then the one store nearest to its source: what filters and
maps make of those rows is computed when it is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from streamstate.errors import TopologyError
from streamstate.graph.builder import GraphBuilder, NodeRef
from streamstate.graph.names import checked
from streamstate.graph.node import Graph, Node
from streamstate.graph.spec import SpecDefaults
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.forwarding import Change, fan_out_changes
from streamstate.operators.base.rows import Getter, GetterAsOf, left_out, rows_in
from streamstate.serde import Serde
from streamstate.state.spec import StoreSpec

__all__ = [
    "KeptTable",
    "TableSpec",
    "TakesChanges",
    "claim_result_store",
    "entered",
    "gives_old",
    "leave_out",
    "materialized",
    "named",
    "needs_old",
    "result_store",
    "rows",
    "shown_store",
    "stale_changes",
    "versioned_store",
    "versions",
]


class NodesAndStores(Protocol):
    """A graph, or one that is being described."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...

    @property
    def stores(self) -> Mapping[str, StoreSpec]: ...


class TableSpec(SpecDefaults, ABC):
    """The spec of an operator that makes a table."""

    __slots__ = ()

    @property
    @abstractmethod
    def shown_store(self) -> str | None:
        """The store that holds exactly what the table shows, if there is one."""

    @abstractmethod
    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Names of the stores in which the rows are found; makes one where there is none yet.

        Args:
            builder: has the table.
            node: of the table.
            asked_by: the operator that needs the rows, for errors.

        Raises:
            TopologyError: rows of such a table cannot be looked up.
        """

    @abstractmethod
    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """How the operator ``asked_by`` looks up rows."""

    @abstractmethod
    def gives_old(self, graph: Graph, node: Node) -> bool:
        """Whether changes say what a row was before without a store for it. A filter behind such a table leaves out
        deletions of what it never let through, as in Kafka Streams (KAFKA-10077)."""

    def versioned_store(self, graph: NodesAndStores, node: Node) -> StoreSpec | None:
        """The versioned store from which rows can be told as of a time; None where they cannot."""
        return None

    def versions(self, compilation: Compilation, node: Node, asked_by: str) -> GetterAsOf | None:
        """How the operator ``asked_by`` looks up rows as of a time; None where it cannot."""
        return None


class TakesChanges(ABC):
    """The spec of an operator that takes the changes of a table."""

    __slots__ = ()

    @abstractmethod
    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """Whether it, or something behind it, compares the old row with the new one."""

    @abstractmethod
    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """Where changes go that are not the newest of their row, which only a versioned table has."""


class KeptTable(TableSpec):
    """A table whose rows are in the store ``store`` from the start."""

    __slots__ = ()

    store: str

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.store,)

    @property
    def shown_store(self) -> str | None:
        """Its store."""
        return self.store

    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Its store."""
        return (self.store,)

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """From its store."""
        return rows_in(asked_by, compilation.stores[self.store])

    def gives_old(self, graph: Graph, node: Node) -> bool:
        """The store has it."""
        return True


def named(store: str | None) -> tuple[str, ...]:
    """``stores`` of a spec that may have one."""
    return () if store is None else (store,)


def result_store(
    node: str, key: Serde[Any], value: Serde[Any] | None, asked_by: str, operator: str, made_by: str
) -> StoreSpec:
    """The store for results that cannot be computed again when they are looked up.

    Args:
        node: whose results they are; names the store.
        key: serde of the key.
        value: serde of the result, where known.
        asked_by: the operator that needs the rows.
        operator: what takes ``value=``, for the error.
        made_by: what made the results, for the store's mark.

    Raises:
        TopologyError: the serde of the result is not known.
    """
    if value is None:
        raise TopologyError(
            f"{asked_by} needs the rows of {node!r} and therefore the serde of its values: pass value= to {operator}, "
            "such as value=serde.json()"
        )
    return StoreSpec(node, key, value, content=f"table of {made_by}")


def claim_result_store(at: NodeRef, store: str | None, operator: str) -> None:
    """Add the store that a user has named for the result of an operator.

    Args:
        at: the result.
        store: its name; None: there is none.
        operator: makes the result.

    Raises:
        TopologyError: a serde is not known, or the name is illegal or taken.
    """
    if store is not None:
        key, value = at.key_serde(operator), at.value_serde(operator)
        at.builder.claim_store(StoreSpec(checked(store, "name of a store"), key, value, content=f"table of {operator}"))


def _table(node: Node) -> TableSpec:
    assert isinstance(node.spec, TableSpec), f"{node.name!r} makes no table"
    return node.spec


def shown_store(graph: NodesAndStores, node: str) -> str | None:
    """The store that holds exactly what the table ``node`` shows, if there is one."""
    return _table(graph.nodes[node]).shown_store


def materialized(builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
    """Names of the stores in which the rows of a table are found; see ``TableSpec.materialize``.

    Raises:
        TopologyError: its rows cannot be looked up.
    """
    spec = builder.nodes[node].spec
    if not isinstance(spec, TableSpec):
        raise TopologyError(f"{asked_by} cannot look into the table {node!r}: its rows are not kept by key")
    return spec.materialize(builder, node, asked_by)


def versioned_store(graph: NodesAndStores, node: str) -> StoreSpec | None:
    """The versioned store from which rows of the table ``node`` can be told as of a time."""
    found = graph.nodes[node]
    return _table(found).versioned_store(graph, found)


def rows(compilation: Compilation, name: str, asked_by: str) -> Getter:
    """How the operator ``asked_by`` looks up rows of the table ``name``."""
    node = compilation.graph.nodes[name]
    return _table(node).rows(compilation, node, asked_by)


def versions(compilation: Compilation, name: str, asked_by: str) -> GetterAsOf | None:
    """How the operator ``asked_by`` looks up rows of the table ``name`` as of a time; None where it cannot."""
    node = compilation.graph.nodes[name]
    return _table(node).versions(compilation, node, asked_by)


def gives_old(graph: Graph, name: str) -> bool:
    """Whether changes of the table ``name`` say what a row was before without a store for it."""
    node = graph.nodes[name]
    return _table(node).gives_old(graph, node)


def _consumers(graph: Graph, name: str) -> list[tuple[Node, TakesChanges]]:
    found: list[tuple[Node, TakesChanges]] = []
    for child in graph.children(name):
        node: Any = graph.nodes[child]
        assert isinstance(node.spec, TakesChanges), f"{child!r} cannot take changes of a table"
        found.append((node, node.spec))
    return found


def needs_old(graph: Graph, name: str) -> bool:
    """Whether something behind the table ``name`` compares old and new rows."""
    return any(spec.asks_for_old(graph, node, name) for node, spec in _consumers(graph, name))


def stale_changes(compilation: Compilation, name: str) -> Change:
    """What a versioned table calls for changes that are not the newest of their row."""
    consumers = _consumers(compilation.graph, name)
    return fan_out_changes([spec.stale_changes(compilation, node, name) for node, spec in consumers])


def entered(compilation: Compilation, node: Node, parent: str) -> Change:
    """How a change of ``parent`` enters ``node``."""
    change: Change = compilation.sides.get((node.name, parent)) or compilation.tables[node.name]
    return change


def leave_out(compilation: Compilation) -> Change:
    """Count a change as dropped."""
    return left_out(compilation.context)
