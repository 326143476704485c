"""Punctuations and timers of a task: what is called when a time has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Schedule:
    """One punctuation."""

    __slots__ = ("_owner", "callback", "interval_ms", "next_ms", "wall_clock")

    def __init__(
        self, owner: Schedules, interval_ms: int, next_ms: int, wall_clock: bool, callback: Callable[[int], object]
    ) -> None:
        self._owner = owner
        self.interval_ms = interval_ms
        self.next_ms = next_ms
        self.wall_clock = wall_clock
        self.callback = callback

    def cancel(self) -> None:
        """Do not call it again."""
        self._owner.remove(self)

    def run(self, time_ms: int) -> int:
        """Call it, once however many intervals have passed; return how many calls that were."""
        missed = (time_ms - self.next_ms) // self.interval_ms
        self.next_ms += (missed + 1) * self.interval_ms
        self.callback(time_ms)
        return 1


NEVER_MS = (1 << 63) - 1


class Scheduled(Protocol):
    """What is called when a time has come.

    Attributes:
        next_ms: when it is next due.
        wall_clock: by the wall clock; otherwise in stream time.
    """

    next_ms: int
    wall_clock: bool

    def run(self, time_ms: int) -> int:
        """Do what is due at ``time_ms``; return how much it was."""
        ...


class Schedules:
    """The punctuations of a task, and the timers of its processors.

    Attributes:
        next_stream_ms: stream time at which the next one is due.
        next_wall_ms: wall-clock time at which the next one, or what is held back, is due.
        release_ms: wall-clock time at which what operators hold back must go on.
        timers: by store of timers, the processor that is called.
    """

    __slots__ = ("_all", "next_stream_ms", "next_wall_ms", "release_ms", "timers")

    def __init__(self) -> None:
        self._all: list[Scheduled] = []
        self.timers: dict[str, str] = {}
        self.release_ms = NEVER_MS
        self.next_stream_ms = NEVER_MS
        self.next_wall_ms = NEVER_MS

    def add(
        self, interval_ms: int, wall_clock: bool, callback: Callable[[int], object], now_ms: int, stream_time: int
    ) -> Schedule:
        """Add one. Wall-clock ones are first due one interval from now. Stream-time ones fall on multiples of the
        interval, so that a task that moved to another process continues in the same rhythm; the very first is
        due with the first record."""
        if wall_clock:
            next_ms = now_ms + interval_ms
        elif stream_time < 0:
            next_ms = 0
        else:
            next_ms = (stream_time // interval_ms + 1) * interval_ms
        schedule = Schedule(self, interval_ms, next_ms, wall_clock, callback)
        self.attach(schedule)
        return schedule

    def attach(self, scheduled: Scheduled) -> None:
        """Add something else that says itself when it is due."""
        self._all.append(scheduled)
        self._refresh()

    def due_earlier(self, time_ms: int, *, wall_clock: bool) -> None:
        """One of them is due at ``time_ms`` already."""
        if wall_clock:
            self.next_wall_ms = min(self.next_wall_ms, time_ms)
        else:
            self.next_stream_ms = min(self.next_stream_ms, time_ms)

    def remove(self, schedule: Scheduled) -> None:
        """Forget it; harmless when already gone."""
        if schedule in self._all:
            self._all.remove(schedule)
            self._refresh()

    def clear(self) -> None:
        """Forget all."""
        self._all.clear()
        self._refresh()

    def run(self, time_ms: int, wall_clock: bool) -> int:
        """Call each that is due at ``time_ms``; return how many calls that were."""
        calls = 0
        for schedule in list(self._all):
            if schedule.wall_clock is wall_clock and schedule.next_ms <= time_ms and schedule in self._all:
                calls += schedule.run(time_ms)
        self._refresh()
        return calls

    def _refresh(self) -> None:
        self.next_stream_ms = min((s.next_ms for s in self._all if not s.wall_clock), default=NEVER_MS)
        self.next_wall_ms = min((s.next_ms for s in self._all if s.wall_clock), default=NEVER_MS)
        self.next_wall_ms = min(self.next_wall_ms, self.release_ms)

    def hold(self, release_ms: int) -> None:
        """Say when what operators hold back must go on."""
        if release_ms != self.release_ms:
            self.release_ms = release_ms
            self._refresh()
