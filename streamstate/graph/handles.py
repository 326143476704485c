"""What the handles of all operators share, and how one kind of handle makes another.

Streams make tables and tables make streams. The operators' modules name neither class: ``streamstate.dsl`` binds the
classes here when it is imported, and everything below makes handles with ``stream_at`` and ``table_at``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeGuard, TypeVar

from streamstate.functions import Kind
from streamstate.graph.builder import NodeRef
from streamstate.graph.error_policy import ErrorPolicy
from streamstate.graph.spec import OperatorSpec

if TYPE_CHECKING:
    from streamstate.dsl.global_table import GlobalTable
    from streamstate.dsl.stream import Stream
    from streamstate.dsl.table import Table
    from streamstate.operators.aggregate.handle import GroupedStream

__all__ = [
    "Handle",
    "OnError",
    "bind",
    "is_global_table",
    "is_grouped_stream",
    "is_stream",
    "is_table",
    "stream_at",
    "table_at",
]

K = TypeVar("K")
V = TypeVar("V")

OnError = Literal["fail", "continue"] | ErrorPolicy


class Handle(Generic[K, V]):
    """Where a user is in a topology. A handle only adds nodes; it holds nothing but its place."""

    __slots__ = ("_at",)

    def __init__(self, at: NodeRef) -> None:
        self._at = at

    def _then(
        self, spec: OperatorSpec, operator: str, name: str | None, function: object, form: str, *, kind: Kind = "plain"
    ) -> NodeRef:
        """The output of a new node, after a look at the user's function."""
        self._at.check(function, operator, form, kind=kind)
        return self._at.then(spec, operator, name)


# Bound once, by ``streamstate.dsl``.
_classes: dict[str, type] = {}


def bind(*, stream: type, table: type, global_table: type, grouped_stream: type) -> None:
    """Say which classes are the handles of streams, tables, global tables and grouped streams."""
    _classes.update(stream=stream, table=table, global_table=global_table, grouped_stream=grouped_stream)


def stream_at(at: NodeRef) -> Stream[Any, Any]:
    """The stream whose records are at ``at``."""
    made: Stream[Any, Any] = _classes["stream"](at)
    return made


def table_at(at: NodeRef) -> Table[Any, Any]:
    """The table whose changes are at ``at``."""
    made: Table[Any, Any] = _classes["table"](at)
    return made


def is_stream(handle: object) -> TypeGuard[Stream[Any, Any]]:
    """Whether it is a ``Stream``."""
    return isinstance(handle, _classes["stream"])


def is_table(handle: object) -> TypeGuard[Table[Any, Any]]:
    """Whether it is a ``Table``."""
    return isinstance(handle, _classes["table"])


def is_global_table(handle: object) -> TypeGuard[GlobalTable[Any, Any]]:
    """Whether it is a ``GlobalTable``."""
    return isinstance(handle, _classes["global_table"])


def is_grouped_stream(handle: object) -> TypeGuard[GroupedStream[Any, Any]]:
    """Whether it is a ``GroupedStream``."""
    return isinstance(handle, _classes["grouped_stream"])
