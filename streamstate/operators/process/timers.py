"""A Processor's timers, between its store and the task's schedules.

Rule of this module: a timer is called with the context of its own time, after the record that moved stream time, or
between records where it is the wall clock's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.schedules import NEVER_MS
from streamstate.state.staging import StagedStore
from streamstate.state.timer_store import Timers
from streamstate.windows import checked_time

# What is due in stream time is called before the next record, however many there are. What is due by the wall clock
# can wait for the next turn.
CALLED_PER_TURN: Final = 1_000


class TimerService:
    """Implements ``streamstate.operators.process.store_views.Timers``, and what ``Schedules`` calls.

    Args:
        staging: the overlay of the store.
        context: the task's.
        call: takes (key, time in ms).
    """

    __slots__ = ("_call", "_context", "_timers", "next_ms", "wall_clock")

    def __init__(self, staging: StagedStore, context: TaskContext, call: Callable[[Any, int], object]) -> None:
        self._timers = Timers(staging)
        self._context = context
        self._call = call
        self.wall_clock = staging.spec.kind == "wall_clock_timers"
        self.next_ms = NEVER_MS
        self._look_ahead()

    def set(self, key: Any, at_ms: int) -> None:
        checked_time(at_ms, "a timer")
        self._timers.set(key, at_ms)
        if at_ms < self.next_ms:
            self.next_ms = at_ms
            self._context.schedules.due_earlier(at_ms, wall_clock=self.wall_clock)

    def cancel(self, key: Any) -> bool:
        return self._timers.cancel(key)

    def get(self, key: Any) -> int | None:
        return self._timers.get(key)

    def all(self) -> Iterator[tuple[Any, int]]:
        return self._timers.all()

    def run(self, now_ms: int) -> int:
        """Call what is due; return how many that were."""
        calls = 0
        for key, time_ms in self._timers.due(now_ms, CALLED_PER_TURN if self.wall_clock else NEVER_MS):
            self._call(key, time_ms)
            calls += 1
        self._look_ahead()
        return calls

    def _look_ahead(self) -> None:
        first = self._timers.next_ms()
        self.next_ms = NEVER_MS if first is None else first
