"""Contenders as processes: started, watched from outside, and always stopped.

Rule of this module: what a process costs is read from the operating system, not from the process.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.job import Job

__all__ = ["ContenderFailed", "Cost", "Running", "Team"]

_STOP_S = 30
_QUOTED_LINES = 15
_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024


class ContenderFailed(Exception):
    """A contender ended, hung or said something that cannot be used."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a contender's processes used.

    Attributes:
        user_s, system_s: CPU seconds from start to end.
        peak_bytes: the sum of each process's largest resident set.
    """

    user_s: float
    system_s: float
    peak_bytes: int


class Running:
    """One process.

    Args:
        command: without the job.
        job: its argument.
        log: where its standard error goes.
        environment: added to this process's.
    """

    def __init__(self, command: Sequence[str], job: Job, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        # What it has said, with the time of each line.
        self.lines: list[tuple[float, str]] = []
        self._peak_bytes = 0
        self.cost: Cost | None = None
        self._status: int | None = None
        with log.open("wb") as errors:
            # A session of its own: Ctrl-C is ours to handle, and what it starts can be killed with it.
            self._process = subprocess.Popen(
                [*command, job.text()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        self.started = time.monotonic()
        self._reader = threading.Thread(target=self._listen, name=f"listen {self._process.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append((time.monotonic(), line.decode("utf-8", "replace").strip()))

    def said(self, word: str) -> list[tuple[float, str]]:
        """Its lines that begin with this word: when, and what followed."""
        return [(at, line[len(word) :].strip()) for at, line in list(self.lines) if line.split(" ", 1)[0] == word]

    def check(self) -> None:
        """Raise ContenderFailed if it has ended."""
        if not self.is_alive():
            raise ContenderFailed(f"it ended with status {self._status}:\n{self.quoted()}")

    def is_alive(self) -> bool:
        """Whether it runs; when it does not, its cost is known."""
        if self.cost is not None:
            return False
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid:
            self._ended(status, usage)
        return not pid

    def _ended(self, status: int, usage: resource.struct_rusage) -> None:
        self._status = os.waitstatus_to_exitcode(status)
        self._process.returncode = self._status
        # Linux hands a process's peak down to what it starts, so that ours would stand in place of a smaller one.
        peak = self._peak_bytes or usage.ru_maxrss * (1 if sys.platform == "darwin" else _KIB)
        self.cost = Cost(usage.ru_utime, usage.ru_stime, peak)
        self._reader.join(timeout=5)

    def sample(self) -> float:
        """CPU seconds so far, 0 where the system does not tell; notes the peak of its memory."""
        with contextlib.suppress(OSError, ValueError):
            directory = Path("/proc", str(self._process.pid))
            for line in (directory / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self._peak_bytes = max(self._peak_bytes, int(line.split()[1]) * _KIB)
                    break
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS
        return 0.0

    def stop(self) -> None:
        """Let it finish in order; kill it when it does not."""
        if self.is_alive():
            self.sample()
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                _until(lambda: not self.is_alive(), _STOP_S)
            finally:
                self.kill()

    def kill(self) -> None:
        """End it at once, with all that it started."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(self._process.pid, 0)
            self._ended(status, usage)

    def quoted(self) -> str:
        """The end of what it wrote to standard error."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_QUOTED_LINES:]) or "(it wrote nothing to standard error)"


class Team:
    """All processes of a contender's run; a context manager that leaves none behind."""

    def __init__(self) -> None:
        self.members: list[Running] = []

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: object) -> None:
        for member in self.members:
            member.kill()

    def start(self, command: Sequence[str], job: Job, log: Path, environment: Mapping[str, str]) -> Running:
        """Start one more process."""
        member = Running(command, job, log, environment)
        self.members.append(member)
        return member

    def check(self) -> None:
        """Raise ContenderFailed if one of them has ended."""
        for member in self.members:
            member.check()

    def sample(self) -> float:
        """CPU seconds so far of all."""
        return sum(member.sample() for member in self.members)

    def said(self, word: str) -> list[tuple[float, str]]:
        """What any of them said, in order of time."""
        return sorted(line for member in self.members for line in member.said(word))

    def wait(self, condition: Callable[[], bool], limit_s: float, what: str, pause_s: float = 0.02) -> None:
        """Return when the condition holds.

        Raises:
            ContenderFailed: a process ended, or the time is over.
        """
        deadline = time.monotonic() + limit_s
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise ContenderFailed(f"{what}: not within {limit_s:.0f} s\n{self.quoted()}")
            time.sleep(pause_s)

    def quoted(self) -> str:
        """The ends of what they wrote to standard error."""
        return "\n".join(member.quoted() for member in self.members)

    def stop(self) -> Cost:
        """End all in order and return what they cost together."""
        for member in self.members:
            member.stop()
        costs = [member.cost for member in self.members if member.cost is not None]
        return Cost(
            sum(cost.user_s for cost in costs),
            sum(cost.system_s for cost in costs),
            sum(cost.peak_bytes for cost in costs),
        )


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the suite as Ctrl-C does: with everything stopped."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _until(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
