"""Progress while it runs: a line that is redrawn on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

__all__ = ["View"]

LINE_EVERY_S = 10.0


class View:
    """Shows events as they come, and one line of numbers.

    Args:
        console: where.
        numbers: the line.
    """

    def __init__(self, console: Console, numbers: Callable[[], str]) -> None:
        self._console = console
        self._numbers = numbers
        self._began = time.monotonic()
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._line, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._lines, name="view", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join(5)

    def say(self, text: str) -> None:
        """Something happened."""
        self._console.print(
            f"{time.monotonic() - self._began:4.0f} s  {text}", soft_wrap=True, markup=False, highlight=False
        )

    def _line(self) -> Text:
        return Text(f"{time.monotonic() - self._began:4.0f} s  {self._numbers()}", style="bold")

    def _lines(self) -> None:
        while not self._stop.wait(LINE_EVERY_S):
            self.say(self._numbers())
