"""Operators that hold records back: calls that are awaited, and batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from streamstate.graph.error_policy import ErrorPolicy
from streamstate.graph.node import Graph, Node
from streamstate.graph.spec import SpecDefaults
from streamstate.operators.async_map.runtime import AsyncMapper, BatchMapper
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.holding import HoldingOperator

__all__ = ["MapAsync", "MapBatches", "Order"]

Order = Literal["key", "input", "none"]


class _HoldsBack(SpecDefaults):
    """An operator whose records go on later, or together."""

    __slots__ = ()

    stores: ClassVar[tuple[str, ...]] = ()
    on_error: ErrorPolicy | None

    @property
    def error_policies(self) -> tuple[ErrorPolicy, ...]:
        """Its own, if it has one."""
        return () if self.on_error is None else (self.on_error,)

    def _hold(self, compilation: Compilation, node: Node, holder: HoldingOperator) -> None:
        holder.alone = _feeds_alone(compilation.graph, node.name)
        compilation.task.holders.append(holder)
        if self.on_error is not None:
            compilation.task.policies[node.name] = self.on_error
        compilation.streams[node.name] = holder.run


@dataclass(frozen=True, slots=True)
class MapAsync(_HoldsBack):
    """Replaces values by what a coroutine returns.

    Attributes:
        order: in which results go on: ``key``: within each key as the records came; ``input``: all as they came;
            ``none``: as they are ready.
        in_flight: most records held.
        timeout_ms: of one attempt; None: it may take for ever.
        retries: attempts after the first.
        backoff_ms: before the first retry; twice as long before each next one.
        on_error: overrides the source's policy for a call that fails.
        with_key: the function takes the key too, in front.
    """

    operator: ClassVar[str] = "map_async"

    function: Callable[..., Awaitable[Any]]
    order: Order
    in_flight: int
    timeout_ms: int | None
    retries: int
    backoff_ms: int
    on_error: ErrorPolicy | None = None
    with_key: bool = True

    @property
    def longest_ms(self) -> int | None:
        """How long one record may take; None: for ever."""
        return (
            None
            if self.timeout_ms is None
            else self.timeout_ms * (self.retries + 1) + self.backoff_ms * ((1 << self.retries) - 1)
        )

    def compile(self, compilation: Compilation, node: Node) -> None:
        """One AsyncMapper."""
        forward = compilation.forward(node)
        self._hold(compilation, node, AsyncMapper(node.name, self, compilation.context, forward, compilation.undo))


@dataclass(frozen=True, slots=True)
class MapBatches(_HoldsBack):
    """Replaces values by those that a function of a list of them returns.

    Attributes:
        size: most values at once.
        delay_ms: longest wait for a batch to fill; None: until it is full, or a commit comes.
        on_error: overrides the source's policy for a value that fails.
        with_key: the function takes the list of their keys too, in front.
    """

    operator: ClassVar[str] = "map_batches"

    function: Callable[..., Sequence[Any]]
    size: int
    delay_ms: int | None
    on_error: ErrorPolicy | None = None
    with_key: bool = False

    def compile(self, compilation: Compilation, node: Node) -> None:
        """One BatchMapper."""
        forward = compilation.forward(node)
        self._hold(compilation, node, BatchMapper(node.name, self, compilation.context, forward, compilation.undo))


def _feeds_alone(graph: Graph, name: str) -> bool:
    """True when all that is behind the node is fed, and its stores are used, by nothing else."""
    behind: dict[str, None] = {}
    waiting = list(graph.children(name))
    while waiting:
        child = waiting.pop()
        if child not in behind:
            behind[child] = None
            waiting += graph.children(child)
    stores = {store for node in behind for store in graph.nodes[node].spec.stores}
    for node in graph.nodes.values():
        if node.name in behind:
            if any(parent != name and parent not in behind for parent in node.parents):
                return False
        elif stores.intersection(node.spec.stores):
            return False
    return True
