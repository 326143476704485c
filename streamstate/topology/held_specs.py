"""Operators that hold records back: calls that are awaited, and batches.

Rule of this module: frozen values only, as in ``specs``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from streamstate.topology.specs import ErrorPolicy

__all__ = ["HeldSpec", "MapAsync", "MapBatches", "Order"]

Order = Literal["key", "input", "none"]


@dataclass(frozen=True, slots=True)
class MapAsync:
    """Replaces values by what a coroutine of (key, value) returns.

    Attributes:
        order: in which results go on: ``key``: within each key as the records came; ``input``: all as they came;
            ``none``: as they are ready.
        in_flight: most records held.
        timeout_ms: of one attempt.
        retries: attempts after the first.
        backoff_ms: before the first retry; twice as long before each next one.
        on_error: overrides the source's policy for a call that fails.
    """

    function: Callable[[Any, Any], Awaitable[Any]]
    order: Order
    in_flight: int
    timeout_ms: int
    retries: int
    backoff_ms: int
    on_error: ErrorPolicy | None = None

    @property
    def longest_ms(self) -> int:
        """How long one record may take."""
        return self.timeout_ms * (self.retries + 1) + self.backoff_ms * ((1 << self.retries) - 1)


@dataclass(frozen=True, slots=True)
class MapBatches:
    """Replaces values by those that a function of a list of them returns.

    Attributes:
        size: most values at once.
        delay_ms: longest wait for a batch to fill.
        on_error: overrides the source's policy for a value that fails.
    """

    function: Callable[[list[Any]], Sequence[Any]]
    size: int
    delay_ms: int
    on_error: ErrorPolicy | None = None


HeldSpec = MapAsync | MapBatches
