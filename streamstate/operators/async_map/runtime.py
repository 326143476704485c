"""Batches of values, and calls that are awaited: the two operators that hold records back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from streamstate.errors import ProcessingError
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.base.forwarding import Forward
from streamstate.operators.base.holding import STUCK_MS, AsyncCall, HeldRecord, HoldingOperator, Outcome
from streamstate.state.undo import UndoLog

if TYPE_CHECKING:
    from streamstate.operators.async_map.spec import MapAsync, MapBatches


class BatchMapper(HoldingOperator):
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

    def _called(self, batch: list[HeldRecord]) -> list[Outcome]:
        try:
            return self._results(batch)
        except Exception as error:  # noqa: BLE001 - it becomes the failure of a record
            if len(batch) == 1:
                return [(batch[0], None, error)]
        # Whose fault it is shows only one by one.
        return [outcome for held in batch for outcome in self._called([held])]

    def _results(self, batch: list[HeldRecord]) -> list[Outcome]:
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


class AsyncMapper(HoldingOperator):
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

    def _wait(self, calls: Sequence[AsyncCall]) -> None:
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

    def _outcome(self, held: HeldRecord) -> Outcome:
        held.stream_time = self._stream_time = max(self._stream_time, held.stream_time)
        try:
            return held, held.content.result(), None
        except Exception as error:  # noqa: BLE001 - it becomes the failure of the record
            return held, None, error

    def discard(self) -> None:
        for held in self._held.values():
            held.content.cancel()
        super().discard()
