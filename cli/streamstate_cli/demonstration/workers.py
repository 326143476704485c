"""Worker processes: started, listened to, killed, stopped.

Rule of this module: each is a process of its own, ``streamstate run`` as a user would start it; all that is known of
it is what it prints and how it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamstate.errors import StreamStateError

__all__ = ["COMMAND", "Status", "Worker", "stop_all"]

COMMAND = (sys.executable, "-m", "streamstate_cli", "run")
STOP_S = 20
LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker last said of itself; the fields are those of ``streamstate.engine.WorkerStatus``."""

    processed: int = 0
    sent: int = 0
    committed: int = 0
    commits: int = 0
    rollbacks: int = 0
    tasks: dict[str, str] = field(default_factory=dict)
    restored: int = 0

    @classmethod
    def parse(cls, event: dict[str, Any]) -> Status:
        """From the event ``status``; fields that are missing count as nothing."""
        names = ("processed", "sent", "committed", "commits", "rollbacks")
        restore = event.get("restore") or {}
        return cls(
            **{name: int(event.get(name) or 0) for name in names},
            tasks=dict(event.get("tasks") or {}),
            restored=int(restore.get("records") or 0),
        )

    def in_phase(self, phase: str) -> int:
        """Number of tasks in that phase."""
        return sum(1 for each in self.tasks.values() if each == phase)

    @property
    def running(self) -> int:
        """Tasks that process."""
        return self.in_phase("running")

    def running_outside(self, subtopology: str) -> int:
        """Running tasks of other sub-topologies than this; a task's name is that of its sub-topology and a number."""
        return sum(
            1 for name, phase in self.tasks.items() if phase == "running" and name.rpartition("_")[0] != subtopology
        )

    @property
    def restoring(self) -> int:
        """Tasks that do not process yet."""
        return len(self.tasks) - self.running


class Worker:
    """One process.

    Args:
        number: what the demonstration calls it.
        command: what to run; it prints one JSON object per line.
        log_path: takes what it writes to stderr.

    Attributes:
        status: what it last said; what it said before it was killed stays.
        killed: it was killed here.
        running_at: when it first had a running task, on the monotonic clock; None before.
    """

    def __init__(self, number: int, command: Sequence[str], log_path: Path) -> None:
        self.number = number
        self.status = Status()
        self.killed = False
        self.started_at = time.monotonic()
        self.running_at: float | None = None
        self._stopping = False
        self._error = ""
        self._log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # A user's settings for other applications are none of its business.
                env={name: value for name, value in os.environ.items() if not name.startswith("STREAMSTATE_")},
                # Ctrl-C in a terminal reaches its whole process group; who is stopped when is decided here.
                process_group=0,
            )
        self._listener = threading.Thread(target=self._listen, name=f"worker-{number}", daemon=True)
        self._listener.start()

    @property
    def name(self) -> str:
        """For people."""
        return f"worker {self.number}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; negative for a signal."""
        return self._process.poll()

    @property
    def state(self) -> str:
        """One word for people."""
        if self.alive:
            if self._stopping:
                return "stopping"
            if self.status.restoring:
                return "restoring"
            return "running" if self.status.tasks else ("starting" if self.running_at is None else "idle")
        if self.killed:
            return "killed"
        return "stopped" if self.exit_code == 0 else "failed"

    def check(self) -> None:
        """Make sure that it runs, or ended because it was told to.

        Raises:
            StreamStateError: it ended by itself; the message quotes its log.
        """
        if not self.alive and not self.killed and not (self._stopping and self.exit_code == 0):
            raise StreamStateError(
                f"Worker {self.number} (pid {self.pid}) ended with status {self.exit_code}: {self._error}\n"
                f"{self.log_tail()}"
            )

    def kill(self) -> None:
        """SIGKILL, as the out-of-memory killer or a power cut would."""
        self.killed = True
        self._process.kill()
        self._process.wait()
        self._listener.join(STOP_S)

    def terminate(self) -> None:
        """Ask it to finish."""
        self._stopping = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        """Return when it has ended; kill it at ``deadline`` on the monotonic clock."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(STOP_S)

    def log_tail(self) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError), self._log_path.open(encoding="utf-8", errors="replace") as log:
            return "".join(f"  {line}" for line in deque(log, LOG_LINES)).rstrip()
        return ""

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        self._heard(event)

    def _heard(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "status":
            self.status = Status.parse(event)
            if self.running_at is None and self.status.running:
                self.running_at = time.monotonic()
        elif kind == "error":
            self._error = str(event.get("message") or event.get("error") or "")


def stop_all(workers: Sequence[Worker]) -> None:
    """End all that run, in order if they can."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + STOP_S
    for worker in workers:
        worker.wait(deadline)
