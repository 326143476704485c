"""Work beside the worker's loop, without a thread.

Rule of this module: a job runs as a whole, when it is asked whether it is done: at once, or so many questions later as
the test says.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["MemoryBackground", "MemoryJob"]


class MemoryJob:
    """Implements the port ``Job``.

    Args:
        work: what is to be done.
        questions: how many times it is not done yet, when nobody wants to wait.
    """

    def __init__(self, work: Callable[[], None], questions: int) -> None:
        self._work = work
        self._left = questions
        self._ended = False
        self._failure: Exception | None = None

    def done(self, timeout_ms: int) -> bool:
        """See the port."""
        if timeout_ms <= 0 and self._left > 0:
            self._left -= 1
            return False
        if not self._ended:
            self._ended = True
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - raised again by ``result``
                self._failure = error
        return True

    def result(self) -> None:
        """See the port."""
        assert self._ended, "not done"
        if self._failure is not None:
            raise self._failure


class MemoryBackground:
    """Implements the port ``Background``.

    >>> job = MemoryBackground(lambda: 1).start(lambda: print("committed"))
    >>> job.done(0)
    False
    >>> job.done(0)
    committed
    True

    Args:
        questions: asked at the start of each job, see ``MemoryJob``.
    """

    def __init__(self, questions: Callable[[], int] = lambda: 0) -> None:
        self._questions = questions

    def start(self, work: Callable[[], None]) -> MemoryJob:
        """See the port."""
        return MemoryJob(work, self._questions())

    def close(self) -> None:
        """See the port."""
