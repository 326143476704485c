"""What a running application tells: one JSON object per line for programs, log lines or a live display for people.

An event is a dict with ``event``, ``worker`` (its index), ``pid`` and ``time_ms``. ``started``, ``status``, then
``stopped`` or ``error`` come from a worker; ``worker_started`` and ``worker_exited`` from what supervises it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from streamstate.engine.metrics import WorkerStatus

__all__ = ["Event", "JsonReporter", "LiveReporter", "LogReporter", "Reporter", "event", "status_fields"]

Event = dict[str, Any]

log = logging.getLogger("streamstate.run")

LOG_EVERY_S = 5.0
SUMMED = ("processed", "sent", "committed", "failed", "dropped", "rollbacks")


def event(name: str, worker: int, **fields: Any) -> Event:
    """An event of this process, now."""
    return {"event": name, "worker": worker, "pid": os.getpid(), "time_ms": time.time_ns() // 1_000_000, **fields}


def status_fields(status: WorkerStatus) -> dict[str, Any]:
    """A worker's numbers as plain values."""
    return asdict(status)


class Reporter(Protocol):
    """Where events go."""

    def emit(self, event: Event) -> None:
        """Tell it."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class JsonReporter:
    """One JSON object per line.

    Args:
        stream: where to.
        on_closed: called once when nobody reads any more.
    """

    def __init__(self, stream: TextIO, on_closed: Callable[[], None]) -> None:
        self._stream: TextIO | None = stream
        self._on_closed = on_closed

    def emit(self, event: Event) -> None:
        """See ``Reporter``."""
        if self._stream is None:
            return
        try:
            # One write per line, so that lines of several processes stay whole.
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            # What is still buffered would fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream = None
            self._on_closed()

    def close(self) -> None:
        """See ``Reporter``."""


@dataclass(slots=True)
class _Worker:
    pid: int
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMMED, 0))
    before: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMMED, 0))
    lag: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    restore: Mapping[str, Any] = field(default_factory=dict)
    state: str = "starting"


class Summary:
    """The numbers of all workers, those of predecessors included."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.workers: dict[int, _Worker] = {}
        self._clock = clock
        self._since = clock()
        self._seen = 0
        self.rate = 0.0
        self._any = False

    def take(self, event: Event) -> None:
        """Note what an event says."""
        name, index, pid = event["event"], event["worker"], event["pid"]
        worker = self.workers.get(index)
        if worker is None:
            worker = self.workers[index] = _Worker(pid)
        if name in ("started", "worker_started") and worker.pid != pid:
            self.workers[index] = worker = _Worker(pid, before=_added(worker.before, worker.totals))
        if name == "status":
            self._any = True
            worker.state = "running"
            worker.totals = {key: int(event[key]) for key in SUMMED}
            worker.lag = event["lag"]
            worker.restore = event["restore"]
            worker.phases = {}
            for phase in event["tasks"].values():
                worker.phases[phase] = worker.phases.get(phase, 0) + 1
        elif name in ("stopped", "error", "worker_exited"):
            worker.state, worker.lag, worker.phases, worker.restore = "ended", 0, {}, {}

    def measure(self) -> None:
        """Start a new interval for the rate."""
        now, seen = self._clock(), self.total("processed")
        if now > self._since:
            self.rate = max(0.0, (seen - self._seen) / (now - self._since))
        self._since, self._seen = now, seen

    def total(self, key: str) -> int:
        """Sum over all workers and their predecessors."""
        return sum(worker.totals[key] + worker.before[key] for worker in self.workers.values())

    @property
    def anything(self) -> bool:
        """Whether a worker has come so far as to have numbers."""
        return self._any

    def last_line(self) -> str:
        """What is left to say at the end."""
        return f"ended: {self.total('processed'):,} records in, {self.total('sent'):,} out"

    def line(self) -> str:
        """All workers in a line."""
        parts = [
            f"in {self.total('processed'):,} ({self.rate:,.0f}/s)",
            f"out {self.total('sent'):,}",
            f"lag {sum(worker.lag for worker in self.workers.values()):,}",
            _tasks(list(self.workers.values())),
        ]
        parts += [f"{key} {self.total(key):,}" for key in ("failed", "dropped", "rollbacks") if self.total(key)]
        return ", ".join(parts)

    def worker_line(self, index: int) -> str:
        """One worker in a line."""
        worker = self.workers[index]
        if worker.state != "running":
            return f"worker {index}  pid {worker.pid}  {worker.state}"
        return f"worker {index}  pid {worker.pid}  in {worker.totals['processed']:,}, lag {worker.lag:,}, " + _tasks(
            [worker]
        )


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: one[key] + other[key] for key in SUMMED}


def _tasks(workers: list[_Worker]) -> str:
    counts: dict[str, int] = {}
    for worker in workers:
        for phase, count in worker.phases.items():
            counts[phase] = counts.get(phase, 0) + count
    text = "tasks " + (", ".join(f"{count} {phase}" for phase, count in sorted(counts.items())) or "none yet")
    remaining = sum(worker.restore.get("remaining", 0) for worker in workers)
    if remaining:
        etas = [eta for worker in workers if (eta := worker.restore.get("eta_ms")) is not None]
        text += f" ({remaining:,} to restore" + (f", about {max(etas) / 1000:.0f} s left)" if etas else ")")
    return text


class LogReporter:
    """A log line every few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._summary = Summary(clock)
        self._clock = clock
        self._next = 0.0

    def emit(self, event: Event) -> None:
        """See ``Reporter``."""
        self._summary.take(event)
        if event["event"] == "status" and self._clock() >= self._next:
            self._next = self._clock() + LOG_EVERY_S
            self._summary.measure()
            log.info("%s", self._summary.line())

    def close(self) -> None:
        """See ``Reporter``."""
        if self._summary.anything:
            log.info("%s", self._summary.last_line())


class LiveReporter:
    """A few lines at the bottom of a terminal; what else is written appears above them."""

    def __init__(self, console: Console) -> None:
        self._summary = Summary()
        # Log lines that go to a file must stay there.
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stderr=sys.stderr.isatty())
        self._live.start()

    def emit(self, event: Event) -> None:
        """See ``Reporter``."""
        self._summary.take(event)
        if event["event"] == "status" and event["worker"] == min(self._summary.workers):
            self._summary.measure()
        lines = [self._summary.line()]
        if len(self._summary.workers) > 1:
            lines += [self._summary.worker_line(index) for index in sorted(self._summary.workers)]
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        """See ``Reporter``."""
        self._live.stop()
        if self._summary.anything:
            print(self._summary.last_line(), file=sys.stderr)
