"""Operators that hold records back until a call has returned or a batch is full.

Rule of this module: a held record keeps all that the record in hand has (time, headers, offset, stream time), so that
what is behind the operator sees it as if it had never been held. Nothing is sent on from here: the task releases what
is held, between records and before each commit, each result as a record of its own, under its own error policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

from streamstate.errors import ConfigError, ProcessingError
from streamstate.operators.context import NEVER_MS, InputRecord, OperatorFailed, TaskContext
from streamstate.operators.stateless import Forward
from streamstate.state import MISSING, UndoLog
from streamstate.topology.held_specs import MapAsync, MapBatches

__all__ = ["Batches", "Call", "Calls", "Held", "Holder", "NoCalls", "Outcome", "Waiting"]

# Beyond the longest time that calls may take: then it is not they that are slow.
STUCK_MS = 5_000


class Call(Protocol):
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


class Calls(Protocol):
    """Runs coroutines. ``streamstate.calls`` implements it."""

    def start(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        *,
        timeout_ms: int | None,
        retries: int,
        backoff_ms: int,
    ) -> Call:
        """Call and await ``function(*arguments)``, again where it fails and retries are left. Returns at once."""
        ...

    def wait(self, calls: Iterable[Call], timeout_ms: int) -> bool:
        """Return when one of these is done; False when none is within the time."""
        ...


class NoCalls:
    """Where nothing runs coroutines."""

    def start(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        *,
        timeout_ms: int | None,
        retries: int,
        backoff_ms: int,
    ) -> Call:
        raise ConfigError("this worker was made without calls=, which map_async needs: pass AsyncioCalls()")

    def wait(self, calls: Iterable[Call], timeout_ms: int) -> bool:
        return False


class Held:
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
Outcome = tuple[Held, Any, Exception | None]


class Holder:
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
        self._held: dict[bytes, Held] = {}
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
        self._held[number] = Held(key, content, timestamp, self._context)


class Batches(Holder):
    """``map_batches``."""

    def __init__(
        self, name: str, spec: MapBatches, context: TaskContext, forward: Forward, undo: UndoLog | None
    ) -> None:
        super().__init__(name, context, forward, undo)
        self._spec = spec

    def run(self, key: Any, value: Any, timestamp: int) -> None:
        if not self._held and self._spec.delay_ms is not None:
            self.due_ms = self._context.now_ms() + self._spec.delay_ms
            schedules = self._context.schedules
            schedules.hold(min(self.due_ms, schedules.release_ms))
        self._hold(key, value, timestamp)
        if len(self._held) >= self._spec.size:
            self._context.release_due = True

    def release(self, every: bool) -> list[Outcome]:
        size = self._spec.size
        if not every and len(self._held) < size and self._context.now_ms() < self.due_ms:
            return []
        held = list(self._held.values())
        self.discard()
        outcomes: list[Outcome] = []
        for start in range(0, len(held), size):
            outcomes += self._called(held[start : start + size])
        return outcomes

    def _called(self, batch: list[Held]) -> list[Outcome]:
        try:
            return self._results(batch)
        except Exception as error:  # noqa: BLE001 - it becomes the failure of a record
            if len(batch) == 1:
                return [(batch[0], None, error)]
        # Whose fault it is shows only one by one.
        return [outcome for held in batch for outcome in self._called([held])]

    def _results(self, batch: list[Held]) -> list[Outcome]:
        values = [held.content for held in batch]
        if self._spec.with_key:
            results = self._spec.function([held.key for held in batch], values)
        else:
            results = self._spec.function(values)
        if isinstance(results, Mapping | Set | str | bytes):
            # They have a length and can be walked through, but not in the order of the values.
            raise TypeError(f"the function of map_batches returned a {type(results).__name__}, not a list of results")
        if len(results) != len(batch):
            raise ValueError(f"the function of map_batches returned {len(results)} results for {len(batch)} values")
        return [(held, value, None) for held, value in zip(batch, results, strict=True)]


class Waiting(Holder):
    """``map_async``: calls start as records come, results go on in the order asked for."""

    def __init__(self, name: str, spec: MapAsync, context: TaskContext, forward: Forward, undo: UndoLog | None) -> None:
        super().__init__(name, context, forward, undo)
        self._spec = spec
        # Where results may overtake each other, stream time must not run backwards behind them.
        self._stream_time = -1

    def run(self, key: Any, value: Any, timestamp: int) -> None:
        spec, context = self._spec, self._context
        if spec.order == "key":
            try:
                hash(key)
            except TypeError as error:
                raise OperatorFailed(self.name, "ordering by the key; order='input' needs no hashable one") from error
        if len(self._held) >= spec.in_flight:
            # One record has become many: what is done can go on only when it is finished with.
            self._wait_for_room()
        call = context.calls.start(
            spec.function,
            (key, value) if spec.with_key else (value,),
            timeout_ms=spec.timeout_ms,
            retries=spec.retries,
            backoff_ms=spec.backoff_ms,
        )
        self._hold(key, call, timestamp)
        if len(self._held) >= spec.in_flight:
            context.release_due = True

    def _wait_for_room(self) -> None:
        while True:
            running = [held.content for held in self._held.values() if not held.content.done()]
            if len(running) < self._spec.in_flight:
                return
            self._wait(running)

    def release(self, every: bool) -> list[Outcome]:
        outcomes: list[Outcome] = []
        room = 0 if every else self._spec.in_flight - 1
        while True:
            outcomes += self._ready()
            if len(self._held) <= room:
                return outcomes
            waiting = [held.content for held in self._held.values()]
            self._wait(waiting[:1] if self._spec.order == "input" else [c for c in waiting if not c.done()])

    def _wait(self, calls: Sequence[Call]) -> None:
        longest_ms = self._spec.longest_ms
        if longest_ms is None:
            ended = not calls
            while not ended:
                ended = self._context.calls.wait(calls, STUCK_MS)
            return
        longest_ms += STUCK_MS
        # None where the last of them has just ended.
        if calls and not self._context.calls.wait(calls, longest_ms):
            raise ProcessingError(
                f"task {self._context.task_id}: operator {self.name!r}: {len(calls)} calls have neither ended nor "
                f"timed out within {longest_ms} ms: a coroutine blocks the event loop. Await in it; "
                f"what blocks belongs into map_values or map_batches"
            )

    def _ready(self) -> list[Outcome]:
        ready: list[Outcome] = []
        blocked: set[Any] = set()
        order = self._spec.order
        for number, held in list(self._held.items()):
            if order == "key" and held.key in blocked:
                continue
            if held.content.done():
                del self._held[number]
                ready.append(self._outcome(held))
            elif order == "input":
                break
            elif order == "key":
                blocked.add(held.key)
        return ready

    def _outcome(self, held: Held) -> Outcome:
        held.stream_time = self._stream_time = max(self._stream_time, held.stream_time)
        try:
            return held, held.content.result(), None
        except Exception as error:  # noqa: BLE001 - it becomes the failure of the record
            return held, None, error

    def discard(self) -> None:
        for held in self._held.values():
            held.content.cancel()
        super().discard()
