"""A clock that stands still until told otherwise.

Rule of this module: time is a number a test sets.
"""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """Implements the port ``Clock`` with a time that a test moves.

    >>> clock = ManualClock(1_000)
    >>> clock.advance(250)
    >>> clock.now_ms(), clock.monotonic_ms()
    (1250, 250)

    Args:
        now_ms: wall-clock time at the start, in ms since 1970.
    """

    __slots__ = ("_monotonic_ms", "_now_ms")

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 0

    def now_ms(self) -> int:
        """Wall-clock time in ms since 1970."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Milliseconds since this clock was made."""
        return self._monotonic_ms

    def advance(self, ms: int) -> None:
        """Let so many milliseconds pass.

        Raises:
            ValueError: time does not run backwards; ``set_wall`` moves the wall clock alone.
        """
        if ms < 0:
            raise ValueError(f"time does not run backwards: {ms} ms")
        self._now_ms += ms
        self._monotonic_ms += ms

    def set_wall(self, now_ms: int) -> None:
        """Set the wall clock, forwards or back, as an operator or NTP would; monotonic time stays."""
        self._now_ms = now_ms
