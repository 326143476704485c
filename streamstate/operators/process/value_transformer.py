"""A user's ValueTransformer in the chain of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamstate.operators.base.context import TaskContext
from streamstate.operators.process.api import ValueTransformer
from streamstate.operators.process.runtime import ProcessorOperator
from streamstate.state.staging import StagedStore


class _AsProcessor:
    """Gives a ValueTransformer the life of a Processor; what it makes of a row is kept for its caller."""

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer
        self.init = transformer.init
        self.close = transformer.close
        self.result: Any = None

    def process(self, key: Any, value: Any) -> None:
        self.result = self._transformer.transform(key, value)


class TransformerOperator(ProcessorOperator):
    """Life and calls of one ValueTransformer."""

    base = ValueTransformer
    method = "transform"

    def __init__(
        self,
        name: str,
        supplier: Callable[[], Any],
        context: TaskContext,
        stores: Mapping[str, StagedStore],
    ) -> None:
        def refuse(key: Any, value: Any, timestamp: int) -> None:
            raise TypeError("a ValueTransformer cannot forward: it returns the row's value")

        super().__init__(name, supplier, context, stores, refuse)

    def _made(self) -> _AsProcessor:
        return _AsProcessor(super()._made())

    def transform(self, key: Any, value: Any, timestamp: int) -> Any:
        """The row's new value."""
        self.run(key, value, timestamp)
        processor = self._processor
        result, processor.result = processor.result, None
        return result
