"""The port ``Background`` on a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["ThreadBackground"]


class ThreadJob:
    """See ``streamstate.engine.ports.Job``."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._ended = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Do the work, in the thread."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again by ``result``
            self._failure = error
        self._ended.set()

    def done(self, timeout_ms: int) -> bool:
        """See the port."""
        return self._ended.wait(timeout_ms / 1000) if timeout_ms > 0 else self._ended.is_set()

    def result(self) -> None:
        """See the port."""
        if self._failure is not None:
            raise self._failure


class ThreadBackground:
    """See ``streamstate.engine.ports.Background``. One thread, started with the first job.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str = "streamstate commits") -> None:
        self._name = name
        self._jobs: SimpleQueue[ThreadJob | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], None]) -> ThreadJob:
        """See the port."""
        if self._thread is None:
            # A daemon: a call that never returns must not keep a process that wants to end.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        job = ThreadJob(work)
        self._jobs.put(job)
        return job

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()

    def close(self) -> None:
        """See the port. Does not wait."""
        self._jobs.put(None)
