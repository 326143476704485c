"""Tables: where their rows come from, what is done with them row by row, and their changes as a stream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from streamstate.graph.builder import GraphBuilder
from streamstate.graph.emit import StreamEmit, TableEmit
from streamstate.graph.node import Graph, Node
from streamstate.graph.queries import policy_behind
from streamstate.graph.spec import Facts, SpecDefaults
from streamstate.operators.base.commit_results import NewestPerCommit, newest_only
from streamstate.operators.base.compilation import Compilation, SourceLog
from streamstate.operators.base.forwarding import Change
from streamstate.operators.base.rows import (
    Getter,
    GetterAsOf,
    rows_in,
    rows_kept,
    rows_through,
    versions_in,
    versions_through,
)
from streamstate.operators.base.tables import (
    NodesAndStores,
    TableSpec,
    TakesChanges,
    entered,
    gives_old,
    materialized,
    named,
    needs_old,
    result_store,
    rows,
    stale_changes,
    versioned_store,
    versions,
)
from streamstate.operators.process.value_transformer import TransformerOperator
from streamstate.operators.table import runtime
from streamstate.operators.topics.spec import Source
from streamstate.serde import Serde
from streamstate.state import Versions
from streamstate.state.spec import StoreSpec

__all__ = ["TableFilter", "TableMapValues", "TableSource", "TableTransformValues", "ToStream", "ToTable"]


@dataclass(frozen=True, slots=True)
class ToStream(SpecDefaults, TakesChanges):
    """Table changes as a stream.

    Attributes:
        key: serde of the key.
        emit: ``update``: each; ``change``: those whose value differs from the row that was there; ``commit``: at each
            commit the newest per key.
        value: serde of the value, where known.
    """

    operator: ClassVar[str] = "to_stream"
    stores: ClassVar[tuple[str, ...]] = ()

    key: Serde[Any]
    emit: StreamEmit = "update"
    value: Serde[Any] | None = None

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """Which changes it sends."""
        return {"emit": self.emit}

    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """To see what has changed."""
        return self.emit == "change"

    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """They are passed on as all others."""
        return entered(compilation, node, parent)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """What turns changes into records."""
        forward = compilation.forward(node)
        if self.emit == "update":
            compilation.tables[node.name] = runtime.every_update(forward)
            return
        if self.emit == "change":
            serialize = None if self.value is None else self.value.serialize
            compilation.tables[node.name] = runtime.only_changed(node.name, serialize, forward)
            return
        policy = policy_behind(compilation.graph, node.name)
        emitter = NewestPerCommit(self.key.serialize, forward, compilation.undo, policy)
        compilation.task.commit_emitters.append(emitter)
        compilation.tables[node.name] = newest_only(emitter) if compilation.undo is None else emitter.change


@dataclass(frozen=True, slots=True)
class TableSource(TableSpec):
    """The records of its parent as rows of a table: the newest per key by offset, a null value deletes.

    Attributes:
        key, value: serdes of the rows.
        store: holds the rows; None while nothing needs them.
        source: the input topic; None where there is none of its own.
        reuse: the topic may serve as the store's changelog.
        emit: ``change`` passes on only what differs from the row that was there.
    """

    operator: ClassVar[str] = "table_source"

    key: Serde[Any]
    value: Serde[Any]
    source: str | None
    reuse: bool
    store: str | None = None
    emit: TableEmit = "update"

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return named(self.store)

    @property
    def shown_store(self) -> str | None:
        """Its store, if it has one."""
        return self.store

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """Which changes it passes on, where not all."""
        return {} if self.emit == "update" else {"emit": self.emit}

    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Its store, which is made now if there was none."""
        if self.store is not None:
            return (self.store,)
        builder.claim_store(
            StoreSpec(node, self.key, self.value, source=self.source, reuse=self.reuse, content="table")
        )
        builder.replace(node, replace(self, store=node))
        return (node,)

    def gives_old(self, graph: Graph, node: Node) -> bool:
        """Where it has a store."""
        return self.store is not None

    def versioned_store(self, graph: NodesAndStores, node: Node) -> StoreSpec | None:
        """Its store, if that keeps versions."""
        if self.store is None or graph.stores[self.store].history_ms is None:
            return None
        return graph.stores[self.store]

    def versions(self, compilation: Compilation, node: Node, asked_by: str) -> GetterAsOf | None:
        """From its store, if that keeps versions."""
        store = self.versioned_store(compilation.graph, node)
        if store is None:
            return None
        return versions_in(asked_by, Versions(compilation.stores[store.name]), store)

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """From its store."""
        find = self.versions(compilation, node, asked_by)
        if find is not None:
            return lambda key: find(key, None)
        assert self.store is not None, f"the table {node.name!r} was asked for rows and has no store"
        return rows_in(asked_by, compilation.stores[self.store])

    def compile(self, compilation: Compilation, node: Node) -> None:
        """What takes records as rows."""
        forward, context = compilation.change(node), compilation.context
        if self.store is None:
            compilation.streams[node.name] = runtime.source_without_rows(context, forward)
            return
        asked = needs_old(compilation.graph, node.name)
        if self.emit == "change":
            forward = runtime.only_changes(node.name, self.value.serialize, forward)
            asked = True
        store = compilation.stores[self.store]
        if store.spec.history_ms is not None:
            stale = stale_changes(compilation, node.name)
            compilation.streams[node.name] = runtime.versioned_source(
                node.name, Versions(store), store.spec, context, forward, stale, needs_old=asked
            )
            return
        compilation.streams[node.name] = runtime.source(node.name, store, context, forward, needs_old=asked)
        if store.spec.reuse:
            source = compilation.graph.nodes[node.parents[0]].spec
            assert isinstance(source, Source), "the log of something that is not a source"
            assert self.source is not None, "the log of no topic"
            compilation.task.source_logs[self.store] = SourceLog(self.source, runtime.rebuilt(source))


@dataclass(frozen=True, slots=True)
class ToTable(TableSource):
    """The same of the records of a stream."""

    operator: ClassVar[str] = "to_table"


class _RowWise(TableSpec, TakesChanges):
    """A table whose rows are made of those of its parent, one by one.

    Attributes:
        store: keeps the rows; None: they are found by way of the parent.
        drops: it may leave rows out.
    """

    __slots__ = ()

    drops: ClassVar[bool]
    store: str | None

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return named(self.store)

    @property
    def shown_store(self) -> str | None:
        """Its store, if it has one."""
        return self.store

    @abstractmethod
    def shown(self, node: Node) -> Callable[[Any, Any], Any]:
        """(key, value) of a row of the parent to the value that this table shows; None: it does not."""

    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Its store, or those of the parent."""
        return self.stores or materialized(builder, builder.nodes[node].parents[0], asked_by)

    def gives_old(self, graph: Graph, node: Node) -> bool:
        """Where it has a store, or the parent does."""
        return self.store is not None or gives_old(graph, node.parents[0])

    def versioned_store(self, graph: NodesAndStores, node: Node) -> StoreSpec | None:
        """That of the parent, unless the rows are kept."""
        return versioned_store(graph, node.parents[0]) if self.store is None else None

    def versions(self, compilation: Compilation, node: Node, asked_by: str) -> GetterAsOf | None:
        """Those of the parent, as this table shows them."""
        if self.store is not None:
            return None
        found = versions(compilation, node.parents[0], asked_by)
        return None if found is None else versions_through(found, self.shown(node))

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """From its store, or those of the parent as this table shows them."""
        if self.store is not None:
            return rows_in(asked_by, compilation.stores[self.store])
        return rows_through(rows(compilation, node.parents[0], asked_by), self.shown(node))

    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """For what is behind it; one with a store finds old rows there."""
        if self.store is not None:
            return False
        return needs_old(graph, node.name) or (self.drops and gives_old(graph, parent))

    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """They go through it, to where they go behind it."""
        if self.store is not None:
            return entered(compilation, node, parent)
        behind = stale_changes(compilation, node.name)
        return runtime.row_wise(self.shown(node), behind, needs_old=False, drops=False)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.row_wise``."""
        forward, asked = compilation.change(node), needs_old(compilation.graph, node.name)
        drops = self.drops and versions(compilation, node.parents[0], node.name) is None
        if drops:
            asked = asked or gives_old(compilation.graph, node.parents[0])
        shown = self.shown(node)
        if self.store is None:
            compilation.tables[node.name] = runtime.row_wise(shown, forward, needs_old=asked, drops=drops)
            return
        store = compilation.stores[self.store]
        compilation.tables[node.name] = runtime.row_wise_kept(
            node.name, store, shown, forward, needs_old=asked, drops=drops
        )


@dataclass(frozen=True, slots=True)
class TableFilter(_RowWise):
    """Rows for which a predicate of (key, value) holds.

    Attributes:
        store: keeps the rows that pass; None: they are found by way of the parent.
    """

    operator: ClassVar[str] = "table_filter"
    drops: ClassVar[bool] = True

    predicate: Callable[[Any, Any], object]
    negate: bool = False
    store: str | None = None

    def shown(self, node: Node) -> Callable[[Any, Any], Any]:
        """The value, or None."""
        return runtime.row_predicate(node.name, self.predicate, self.negate)


@dataclass(frozen=True, slots=True)
class TableMapValues(_RowWise):
    """Rows with their values replaced; ``store`` as in ``TableFilter``, ``with_key`` as in ``MapValues``."""

    operator: ClassVar[str] = "table_map_values"
    drops: ClassVar[bool] = False

    function: Callable[..., Any]
    store: str | None = None
    with_key: bool = False

    def shown(self, node: Node) -> Callable[[Any, Any], Any]:
        """What the function returns."""
        return runtime.row_function(node.name, self.function, self.with_key)


@dataclass(frozen=True, slots=True)
class TableTransformValues(TableSpec, TakesChanges):
    """Rows with their values replaced by a user's ValueTransformer.

    Attributes:
        supplier: makes a new ValueTransformer for each task.
        uses: names of the stores it may use.
        key, value: serdes of the result; the value's may be unknown while there is no store.
        store: keeps the result; None while nothing needs its rows.
    """

    operator: ClassVar[str] = "table_transform_values"

    supplier: Callable[[], Any]
    uses: tuple[str, ...]
    key: Serde[Any]
    value: Serde[Any] | None
    store: str | None = None

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (*named(self.store), *self.uses)

    @property
    def shown_store(self) -> str | None:
        """Its store, if it has one."""
        return self.store

    def materialize(self, builder: GraphBuilder, node: str, asked_by: str) -> tuple[str, ...]:
        """Its store: a transformer may have state, so that calling it again would not give the same row."""
        if self.store is not None:
            return (self.store,)
        store = result_store(node, self.key, self.value, asked_by, "transform_values", "transform_values")
        builder.claim_store(store)
        builder.replace(node, replace(self, store=node))
        return (node,)

    def gives_old(self, graph: Graph, node: Node) -> bool:
        """Where it has a store."""
        return self.store is not None

    def rows(self, compilation: Compilation, node: Node, asked_by: str) -> Getter:
        """From its store."""
        assert self.store is not None, f"the table {node.name!r} was asked for rows and has no store"
        return rows_in(asked_by, compilation.stores[self.store])

    def asks_for_old(self, graph: Graph, node: Node, parent: str) -> bool:
        """The transformer is not called for old rows; what it made of them is in the store."""
        return False

    def stale_changes(self, compilation: Compilation, node: Node, parent: str) -> Change:
        """The transformer sees them as all others."""
        return entered(compilation, node, parent)

    def compile(self, compilation: Compilation, node: Node) -> None:
        """One TransformerOperator, whose results are rows."""
        stores = {**compilation.global_stores, **{store: compilation.stores[store] for store in self.uses}}
        operator = TransformerOperator(node.name, self.supplier, compilation.context, stores)
        compilation.task.processors.append(operator)
        transform, forward = operator.transform, compilation.change(node)
        if self.store is not None:
            asked = needs_old(compilation.graph, node.name)
            forward = rows_kept(node.name, compilation.stores[self.store], forward, needs_old=asked)

        def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
            forward(key, transform(key, new, timestamp), None, timestamp)

        compilation.tables[node.name] = run
