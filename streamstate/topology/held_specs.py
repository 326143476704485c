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


@dataclass(frozen=True, slots=True)
class MapBatches:
    """Replaces values by those that a function of a list of them returns.

    Attributes:
        size: most values at once.
        delay_ms: longest wait for a batch to fill; None: until it is full, or a commit comes.
        on_error: overrides the source's policy for a value that fails.
        with_key: the function takes the list of their keys too, in front.
    """

    function: Callable[..., Sequence[Any]]
    size: int
    delay_ms: int | None
    on_error: ErrorPolicy | None = None
    with_key: bool = False


HeldSpec = MapAsync | MapBatches
