"""Records that an operator holds back until a call has returned or a batch is full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from streamstate.errors import ConfigError
from streamstate.operators.base.context import InputRecord, TaskContext
from streamstate.operators.base.forwarding import Forward
from streamstate.operators.base.schedules import NEVER_MS
from streamstate.state.undo import MISSING, UndoLog

# Beyond the longest time that calls may take: then it is not they that are slow.
STUCK_MS = 5_000


class AsyncCall(Protocol):
    """A coroutine that runs."""

    def done(self) -> bool:
        """True when it has a result or has failed."""
        ...

    def result(self) -> Any:
        """What it returned; raises what it raised."""
        ...

    def cancel(self) -> object:
        """Nobody wants its result any more."""
        ...


class AsyncCalls(Protocol):
    """Runs coroutines. ``streamstate.coroutines`` implements it."""

    def start(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        *,
        timeout_ms: int | None,
        retries: int,
        backoff_ms: int,
    ) -> AsyncCall:
        """Call and await ``function(*arguments)``, again where it fails and retries are left. Returns at once."""
        ...

    def wait(self, calls: Iterable[AsyncCall], timeout_ms: int) -> bool:
        """Return when one of these is done; False when none is within the time."""
        ...


class NoAsyncCalls:
    """Where nothing runs coroutines."""

    def start(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        *,
        timeout_ms: int | None,
        retries: int,
        backoff_ms: int,
    ) -> AsyncCall:
        raise ConfigError("this worker was made without calls=, which map_async needs: pass AsyncioCalls()")

    def wait(self, calls: Iterable[AsyncCall], timeout_ms: int) -> bool:
        return False


class HeldRecord:
    """A record on hold.

    Attributes:
        key: of the record.
        content: its value, or the call that makes the new one.
        timestamp: event time in ms.
        record: where it came from, and its headers; None of a punctuation or a commit.
        stream_time: of the task when it came.
    """

    __slots__ = ("content", "key", "record", "stream_time", "timestamp")

    def __init__(self, key: Any, content: Any, timestamp: int, context: TaskContext) -> None:
        self.key = key
        self.content = content
        self.timestamp = timestamp
        self.record: InputRecord | None = context.record
        self.stream_time = context.stream_time


# The record, its new value, and why it has none.
Outcome = tuple[HeldRecord, Any, Exception | None]


class HoldingOperator:
    """Common part of the operators that hold records back.

    Args:
        name: of the operator.
        context: the task's.
        forward: what follows.
        undo: where to log what to take back when the record in hand fails; None when no policy needs it.

    Attributes:
        due_ms: wall-clock time (ms) at which what is held must go on.
        alone: records reach what is behind it by no other way, so that stream time there may be that of the held.
    """

    def __init__(self, name: str, context: TaskContext, forward: Forward, undo: UndoLog | None) -> None:
        self.name = name
        self.forward = forward
        self.due_ms = NEVER_MS
        self.alone = False
        self._context = context
        self._undo = undo
        # By number, so that an undo log can take one out.
        self._held: dict[bytes, HeldRecord] = {}
        self._number = 0

    def run(self, key: Any, value: Any, timestamp: int) -> None:
        """Take a record."""
        raise AssertionError("abstract")

    def release(self, every: bool) -> list[Outcome]:
        """Records that may go on now, in order.

        Args:
            every: wait until all may.
        """
        raise AssertionError("abstract")

    def discard(self) -> None:
        """Forget what is held."""
        self._held.clear()
        self.due_ms = NEVER_MS

    def __len__(self) -> int:
        return len(self._held)

    def _hold(self, key: Any, content: Any, timestamp: int) -> None:
        self._number += 1
        number = b"%d" % self._number
        if self._undo is not None:
            self._undo.append((self._held, number, MISSING))
        self._held[number] = HeldRecord(key, content, timestamp, self._context)
