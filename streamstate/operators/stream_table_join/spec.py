"""Joins of a stream with a table, and with a global table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from streamstate.graph.node import Graph, Node
from streamstate.graph.queries import policy_behind
from streamstate.graph.spec import Facts, SpecDefaults
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.describing import with_grace
from streamstate.operators.base.rows import rows_in
from streamstate.operators.base.tables import rows, versioned_store, versions
from streamstate.operators.stream_table_join import runtime
from streamstate.serde import Serde

__all__ = ["JoinGrace", "StreamGlobalJoin", "StreamTableJoin"]


@dataclass(frozen=True, slots=True)
class StreamGlobalJoin(SpecDefaults):
    """Each record of a stream with the row of a global table that a function of (key, value) chooses.

    Attributes:
        table: store of the global table.
        function: (key, value) to the row's key, or None.
        joiner: (stream's value, row's value or None) to the result.
        left: also records without a row.
        with_key: ``joiner`` takes the record's key too, in front.
    """

    operator: ClassVar[str] = "stream_global_join"
    # The store of a global table is the process's, not the task's.
    stores: ClassVar[tuple[str, ...]] = ()

    table: str
    function: Callable[[Any, Any], Any]
    joiner: Callable[..., Any]
    left: bool = False
    with_key: bool = False

    @property
    def takes_null_keys(self) -> bool:
        """In a left join they have a result."""
        return self.left

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """The global table."""
        return {"global_table": self.table}

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same."""
        return [self.operator, f"global table {self.table}"]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.join_global``."""
        row = rows_in(node.name, compilation.global_stores[self.table])
        compilation.streams[node.name] = runtime.join_global(
            node.name, self, row, compilation.context, compilation.forward(node)
        )


@dataclass(frozen=True, slots=True)
class JoinGrace:
    """Records of a stream that wait for the table.

    Attributes:
        store: keeps them.
        grace_ms: until the stream's time is so far past theirs.
        key, value: serdes of the stream.
    """

    store: str
    grace_ms: int
    key: Serde[Any]
    value: Serde[Any]


@dataclass(frozen=True, slots=True)
class StreamTableJoin(SpecDefaults):
    """Each record of a stream with the table's row of its key.

    Attributes:
        table: node of the table.
        looked_up: the stores in which its rows are found.
        joiner: (stream's value, row's value or None) to the result.
        left: also records without a row.
        tolerance_ms: how much older than the record the row may be; None: any.
        grace: keeps records back; None: they are joined when they come.
        with_key: ``joiner`` takes the record's key too, in front.
    """

    operator: ClassVar[str] = "stream_table_join"

    table: str
    looked_up: tuple[str, ...]
    joiner: Callable[..., Any]
    left: bool = False
    tolerance_ms: int | None = None
    grace: JoinGrace | None = None
    with_key: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return self.looked_up if self.grace is None else (*self.looked_up, self.grace.store)

    @property
    def takes_null_keys(self) -> bool:
        """In a left join they have a result."""
        return self.left

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """Grace and tolerance, where rows can be looked up as of a time."""
        if self.grace is None and versioned_store(graph, self.table) is None:
            return {}
        grace_ms = 0 if self.grace is None else self.grace.grace_ms
        return {"grace_ms": grace_ms, "grace_is_default": self.grace is None, "tolerance_ms": self.tolerance_ms}

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same."""
        parts = [self.operator]
        if "grace_ms" in facts:
            parts.append(with_grace({"grace_ms": facts["grace_ms"]}, default=facts["grace_is_default"]))
            if self.tolerance_ms is not None:
                parts.append(f"tolerance_ms {self.tolerance_ms}")
        return parts

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.join`` and ``runtime.join_as_of``."""
        name, context, forward = node.name, compilation.context, compilation.forward(node)
        version = versions(compilation, self.table, name)
        if version is None:
            row = rows(compilation, self.table, name)
            compilation.streams[name] = runtime.join(name, self, row, context, forward)
            return
        join = runtime.join_as_of(name, self, version, context, forward)
        if self.grace is not None:
            store = compilation.stores[self.grace.store]
            # What is held are records of the stream, so the policy of their source holds.
            policy = policy_behind(compilation.graph, node.parents[0])
            join = runtime.GraceBuffer(name, self.grace, store, context, join, policy).run
        compilation.streams[name] = join
