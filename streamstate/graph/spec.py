"""What the graph knows of an operator: every spec says it itself.

A spec is a frozen description of one operator. The graph arranges, validates, plans and describes specs by this
protocol only, so that it has no list of the operators there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from streamstate.graph.error_policy import ErrorPolicy
from streamstate.serde import Serde

if TYPE_CHECKING:
    from streamstate.graph.node import Graph, Node

__all__ = ["Facts", "OperatorSpec", "Reset", "SinkSpec", "SourceSpec", "SpecDefaults"]

Reset = Literal["earliest", "latest", "error"]

# What a description shows of an operator, by name: strings, numbers, booleans, lists and dicts of them.
Facts = dict[str, Any]


class OperatorSpec(Protocol):
    """What the spec of every operator has."""

    @property
    def operator(self) -> str:
        """What users call it, such as ``flat_map_values``."""

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the task's stores that it uses."""

    @property
    def error_policies(self) -> tuple[ErrorPolicy, ...]:
        """The error policies that users have given to this operator."""

    @property
    def output_topics(self) -> tuple[str, ...]:
        """The topics outside of the application that it is known to write, without those of error policies."""

    @property
    def takes_null_keys(self) -> bool:
        """Whether records with null keys have a result here, so that no repartition topic before may drop them."""

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """What a description shows of it besides its name, its stores and its parents."""

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same for people, as phrases; the first one begins with the operator's name."""

    def compile(self, compilation: Any, node: Node) -> None:
        """Register the closures of ``node`` with the task in the making.

        Args:
            compilation: the task, an ``operators.base.compilation.Compilation``.
            node: the one of this spec.
        """


class SpecDefaults:
    """What holds for most operators: no policy of its own, no topic that it writes, nothing more to show.

    ``operator``, ``stores`` and ``compile`` have no default: an operator that forgets them does not type-check and
    fails when it is built.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def operator(self) -> str: ...

    @property
    def error_policies(self) -> tuple[ErrorPolicy, ...]:
        """None."""
        return ()

    @property
    def output_topics(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def takes_null_keys(self) -> bool:
        """No."""
        return False

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """Nothing more."""
        return {}

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The operator's name, then each fact."""
        return [self.operator, *(f"{name} {value}" for name, value in facts.items() if value is not None)]


class SourceSpec(SpecDefaults):
    """Where records of topics enter.

    Attributes:
        topics: they are read in merged time order per task.
        key, value: their serdes.
        reset: where to start without a committed offset.
        on_error: what happens to a record that fails.
        internal: true for a repartition topic of this application; its name lacks the application's prefix.
    """

    __slots__ = ()

    topics: tuple[str, ...]
    key: Serde[Any]
    value: Serde[Any]
    reset: Reset
    on_error: ErrorPolicy
    internal: bool


class SinkSpec(SpecDefaults):
    """Where records leave.

    Attributes:
        topic: a name or a function of (key, value).
        key, value: serdes of the records.
        internal: true for a repartition topic of this application; ``topic`` lacks the application's prefix.
        partitions: a repartition topic's asked-for partition count; None: as many as its co-partitioned peers.
    """

    __slots__ = ()

    topic: str | Callable[[Any, Any], str]
    key: Serde[Any]
    value: Serde[Any]
    internal: bool
    partitions: int | None
