"""Leaving out records that came before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from streamstate.graph.node import Graph, Node
from streamstate.graph.spec import Facts, SpecDefaults
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.dedupe.runtime import first_of_each

__all__ = ["Dedupe"]


@dataclass(frozen=True, slots=True)
class Dedupe(SpecDefaults):
    """Passes on the first record of each identity, and leaves out those that follow it for a while.

    Attributes:
        store: the identities that have passed, each with its event time; they end by themselves.
        within_ms: how long after its event time an identity is remembered, by stream time.
        by: (key, value) to the identity; None: the key.
    """

    operator: ClassVar[str] = "dedupe"

    store: str
    within_ms: int
    by: Callable[[Any, Any], Any] | None = None

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.store,)

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """How long identities are remembered."""
        return {"within_ms": self.within_ms}

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same."""
        return [self.operator, f"within {self.within_ms} ms"]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.first_of_each``."""
        store, forward = compilation.stores[self.store], compilation.forward(node)
        compilation.streams[node.name] = first_of_each(node.name, self.by, store, compilation.context, forward)
