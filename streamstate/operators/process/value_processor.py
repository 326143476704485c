"""A user's ValueProcessor in the chain: a Processor whose records keep their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.forwarding import Forward
from streamstate.operators.process.api import ValueProcessor
from streamstate.operators.process.runtime import Headers, ProcessorContext, ProcessorOperator
from streamstate.state.staging import StagedStore

_NO_RECORD = object()


class ValueProcessorContext(ProcessorContext):
    """Implements ``streamstate.operators.process.api.ValueProcessorContext``.

    Attributes:
        key: of the record in hand.
    """

    __slots__ = ("key",)

    def __init__(self, name: str, context: TaskContext, stores: Mapping[str, StagedStore], forward: Forward) -> None:
        super().__init__(name, context, stores, forward)
        self.key: Any = _NO_RECORD

    def forward(  # type: ignore[override]
        self, value: Any, *, timestamp: int | None = None, headers: Headers | None = None
    ) -> None:
        key = self.key
        if key is _NO_RECORD:
            raise RuntimeError(
                f"processor {self._name!r} forwards a value where there is no record to take the key from: in init, a "
                "punctuation or a timer. A Processor, in process(), chooses the key itself"
            )
        super().forward(key, value, timestamp=timestamp, headers=headers)

    def _punctuate(self, callback: Callable[[int], object], time_ms: int, wall_clock: bool, doing: str) -> None:
        self.key = _NO_RECORD
        super()._punctuate(callback, time_ms, wall_clock, doing)


class ValueProcessorOperator(ProcessorOperator):
    """Life and calls of one ValueProcessor."""

    base = ValueProcessor

    def __init__(
        self,
        name: str,
        supplier: Callable[[], Any],
        context: TaskContext,
        stores: Mapping[str, StagedStore],
        forward: Forward,
    ) -> None:
        super().__init__(name, supplier, context, stores, forward)
        self._values = self._context = ValueProcessorContext(name, context, stores, forward)

    def run(self, key: Any, value: Any, timestamp: int) -> None:
        """Give it one record."""
        self._values.key = key
        super().run(key, value, timestamp)
