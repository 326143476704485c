"""Ctrl-C and SIGTERM as an exception, at points where nothing is left half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupted", "Interrupts"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked this process to end.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Raises `Interrupted` in the main thread, once; what cleans up afterwards is left alone.

    As a context manager it sets the handlers, and on leaving puts back those that were there.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._held = 0
        self._pending: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on signals are only noted."""
        self._held += 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """Signals that come within raise at the end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._pending is not None and not self._held:
            self._raise(self._pending)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._pending = number
        if not self._held:
            self._raise(number)

    def _raise(self, number: int) -> None:
        self._held += 1
        raise Interrupted(number)
