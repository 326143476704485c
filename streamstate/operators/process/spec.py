"""Operators that a user's class makes up: processors, and transformers of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from streamstate.graph.error_policy import ErrorPolicy
from streamstate.graph.node import Graph, Node
from streamstate.graph.spec import Facts, SpecDefaults
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.process.runtime import ProcessorOperator
from streamstate.operators.process.value_processor import ValueProcessorOperator
from streamstate.operators.process.value_transformer import TransformerOperator
from streamstate.operators.topics.spec import shown_policy
from streamstate.state import StagedStore

__all__ = ["Process", "ProcessValues", "TransformValues"]


@dataclass(frozen=True, slots=True)
class Process(SpecDefaults):
    """A user's Processor.

    Attributes:
        supplier: makes a new Processor for each task.
        stores: names of the stores it may use.
        on_error: overrides the source's policy for errors raised by this processor.
    """

    operator: ClassVar[str] = "process"

    supplier: Callable[[], Any]
    stores: tuple[str, ...]
    on_error: ErrorPolicy | None = None

    @property
    def error_policies(self) -> tuple[ErrorPolicy, ...]:
        """Its own, if it has one."""
        return () if self.on_error is None else (self.on_error,)

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """The policy, if it has one."""
        return {} if self.on_error is None else {"on_error": shown_policy(self.on_error)}

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same, where it is not ``fail``."""
        policy = facts.get("on_error", "fail")
        return [self.operator] if policy == "fail" else [self.operator, f"on error {policy}"]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """One ProcessorOperator."""
        forward = compilation.forward(node)
        operator = ProcessorOperator(node.name, self.supplier, compilation.context, self._stores(compilation), forward)
        compilation.streams[node.name] = operator.run
        self._attach(compilation, node, operator)

    def _stores(self, compilation: Compilation) -> dict[str, StagedStore]:
        """What it may ask for: what it was given, and the global tables."""
        return {**compilation.global_stores, **{store: compilation.stores[store] for store in self.stores}}

    def _attach(self, compilation: Compilation, node: Node, operator: ProcessorOperator) -> None:
        """Give the operator the life of the task, and its errors their policy."""
        compilation.task.processors.append(operator)
        if self.on_error is not None:
            compilation.task.policies[node.name] = self.on_error


@dataclass(frozen=True, slots=True)
class ProcessValues(Process):
    """A user's ValueProcessor, which leaves keys alone."""

    operator: ClassVar[str] = "process_values"

    def compile(self, compilation: Compilation, node: Node) -> None:
        """One ValueProcessorOperator."""
        forward = compilation.forward(node)
        operator = ValueProcessorOperator(
            node.name, self.supplier, compilation.context, self._stores(compilation), forward
        )
        compilation.streams[node.name] = operator.run
        self._attach(compilation, node, operator)


@dataclass(frozen=True, slots=True)
class TransformValues(Process):
    """A user's ValueTransformer on a stream."""

    operator: ClassVar[str] = "transform_values"

    def compile(self, compilation: Compilation, node: Node) -> None:
        """One TransformerOperator, whose results are sent on."""
        operator = TransformerOperator(node.name, self.supplier, compilation.context, self._stores(compilation))
        transform, forward = operator.transform, compilation.forward(node)

        def run(key: Any, value: Any, timestamp: int) -> None:
            forward(key, transform(key, value, timestamp), timestamp)

        compilation.streams[node.name] = run
        self._attach(compilation, node, operator)
