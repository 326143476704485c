"""Runs the coroutines of ``map_async``: asyncio, in a thread beside the worker's.

It implements the port ``streamstate.operators.base.holding.AsyncCalls`` and knows nothing of records. The
thread and its loop begin with the first call; all coroutines of a process share them, and so may share a client.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from typing import Any

from streamstate.operators.base.holding import AsyncCall

__all__ = ["CoroutineRunner"]


class CoroutineRunner:
    """Implements the port ``AsyncCalls``."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        *,
        timeout_ms: int | None,
        retries: int,
        backoff_ms: int,
    ) -> Future[Any]:
        """See the port."""
        timeout_s = None if timeout_ms is None else timeout_ms / 1_000
        attempts = _attempts(function, arguments, timeout_s, retries, backoff_ms / 1_000)
        return asyncio.run_coroutine_threadsafe(attempts, self._running())

    def wait(self, calls: Iterable[AsyncCall], timeout_ms: int) -> bool:
        """See the port."""
        futures = [call for call in calls if isinstance(call, Future)]
        return bool(concurrent.futures.wait(futures, timeout_ms / 1_000, FIRST_COMPLETED).done)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="streamstate-calls", daemon=True)
            self._thread.start()
        return self._loop

    def close(self) -> None:
        """Cancel what runs and end the thread. A later call begins anew."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _attempts(
    function: Callable[..., Any], arguments: Sequence[Any], timeout_s: float | None, retries: int, backoff_s: float
) -> Any:
    attempt = 0
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                returned = function(*arguments)
                if not hasattr(returned, "__await__"):
                    raise TypeError(
                        f"the function of map_async returned {type(returned).__name__}, which cannot be awaited: make "
                        "it an async def, or take map_values"
                    )
                return await returned
        except Exception as error:
            if attempt == retries:
                if isinstance(error, TimeoutError) and not error.args and timeout_s is not None:
                    raise TimeoutError(f"no answer within {timeout_s:g} s, at the {attempt + 1}. attempt") from error
                raise
        await asyncio.sleep(backoff_s * 2**attempt)
        attempt += 1


async def _cancel_all() -> None:
    mine = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not mine]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
