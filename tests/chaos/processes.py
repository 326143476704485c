"""The application's processes, their places on two machines, and what their state directories hold.

Rule of this module: each process is ``streamstate run`` as a user starts it. All that is known of it is what it prints,
how it ends, and what is on its disk. A machine is a state directory; two processes may share one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamstate_cli.demonstration.workers import COMMAND, Worker, stop_all

from streamstate.errors import BrokerUnavailable
from streamstate.rocksdb import Memory
from streamstate.rocksdb.backend import RocksBackend
from streamstate.rocksdb.directory import try_lock
from tests.chaos.schedule import MAX_PROCESSES
from tests.chaos.topology import STORE

__all__ = ["ChaosWorker", "Fleet", "Restored", "copied", "parse_restored", "position"]

TOPOLOGY = Path(__file__).with_name("topology.py")
MACHINES = 2
# As ``streamstate.engine.assign.restore`` says it.
BEGUN = re.compile(r"task (\S+): restoring store '([^']+)' from offset (\d+) to (\d+)")
DONE = re.compile(r"task (\S+): store '([^']+)' is restored: (\d+) records, offsets (\d+) to (\d+)")


@dataclass(frozen=True, slots=True)
class Restored:
    """A store that a process has restored.

    Attributes:
        task: such as ``totals-repartition_0``.
        records: replayed.
        start, end: offsets of the changelog.
        at: when that was heard, on the monotonic clock.
    """

    task: str
    store: str
    records: int
    start: int
    end: int
    at: float

    @property
    def partition(self) -> int:
        """Of the changelog."""
        return int(self.task.rpartition("_")[2])


def parse_restored(line: str) -> Restored | None:
    """What a log line says about a store that is restored; None when it says nothing about it."""
    found = DONE.search(line)
    if found is None:
        return None
    task, store, records, start, end = found.groups()
    return Restored(task, store, int(records), int(start), int(end), time.monotonic())


class ChaosWorker(Worker):
    """A process and what has become of it.

    Args:
        place: its place in the fleet.
        machine: the state directory it uses.

    Attributes:
        status_at: when its last status came, on the monotonic clock; 0 before.
        paused: it was sent SIGSTOP.
        replaced: it ended by itself, and another was started in its place.
        restored: stores restored so far.
        restoring: stores whose restore has begun and not ended, as (task, store).
    """

    def __init__(self, number: int, command: list[str], log_path: Path, place: int, machine: Path) -> None:
        self.place = place
        self.machine = machine
        self.status_at = 0.0
        self.paused = False
        self.replaced = False
        self.restored: list[Restored] = []
        self.restoring: set[tuple[str, str]] = set()
        self._read_to = 0
        self._rest = b""
        super().__init__(number, command, log_path)

    def _heard(self, event: dict[str, Any]) -> None:
        super()._heard(event)
        if event.get("event") == "status":
            self.status_at = time.monotonic()

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def follow(self) -> None:
        """Read what its log has said since the last time."""
        with self._log_path.open("rb") as log:
            log.seek(self._read_to)
            data = log.read()
        self._read_to += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        begun = BEGUN.search(line)
        if begun is not None:
            self.restoring.add((begun[1], begun[2]))
        done = parse_restored(line)
        if done is not None:
            self.restoring.discard((done.task, done.store))
            self.restored.append(done)

    @property
    def problem(self) -> str | None:
        """How it ended, when nobody wanted it to."""
        if self.alive or self.killed or (self._stopping and self.exit_code == 0):
            return None
        return f"{self.name} (pid {self.pid}) ended with status {self.exit_code}: {self._error}\n{self.log_tail()}"


class Fleet:
    """All processes of one application.

    Args:
        guarantee: ``exactly_once`` or ``at_least_once``.
        bootstrap_servers: of the broker.
        directory: for state and logs.
        options: further arguments of ``streamstate run``.

    Attributes:
        workers: all that were ever started.
        problems: how processes ended that nobody ended.
        gave_up: processes that were started without a broker, gave up, and were started again.
        outages: of the broker, from and to on the monotonic clock; None while it is down.
    """

    def __init__(self, guarantee: str, bootstrap_servers: str, directory: Path, options: list[str]) -> None:
        self.application_id = f"chaos-{guarantee}"
        self._directory = directory
        self._machines = [directory / f"machine-{number}" for number in range(MACHINES)]
        self._command = [
            *COMMAND, f"{TOPOLOGY}:{guarantee}", "--json", "--bootstrap-servers", bootstrap_servers,
            "--processing-guarantee", guarantee, "--workers", "1", *options,
        ]  # fmt: skip
        self.workers: list[ChaosWorker] = []
        self.problems: list[str] = []
        self.gave_up = 0
        self.outages: list[tuple[float, float | None]] = []

    @property
    def live(self) -> list[ChaosWorker]:
        """Those that run, stopped ones included, by place."""
        return sorted((worker for worker in self.workers if worker.alive), key=lambda worker: worker.place)

    def start(self, place: int | None = None) -> ChaosWorker:
        """One more process, in the first free place unless told where."""
        taken = {worker.place for worker in self.live}
        if place is None:
            place = next(each for each in range(MAX_PROCESSES) if each not in taken)
        number = len(self.workers) + 1
        machine = self._machines[place % MACHINES]
        command = [*self._command, "--state-dir", str(machine)]
        worker = ChaosWorker(number, command, self._directory / f"worker-{number}.log", place, machine)
        self.workers.append(worker)
        return worker

    def kill(self, worker: ChaosWorker) -> Path | None:
        """SIGKILL. The directory of its state; None when it had not come so far."""
        places = sorted((worker.machine / self.application_id).glob("process-*"))
        held = [path for path in places if not _free(path)]
        # A stopped process dies without being continued.
        worker.kill()
        worker.paused = False
        worker.follow()
        return next((path for path in held if _free(path)), None)

    def watch(self) -> None:
        """Take note of logs, and of processes that ended by themselves; such a one is replaced."""
        for worker in list(self.workers):
            worker.follow()
            problem = worker.problem
            if problem is None or worker.replaced:
                continue
            worker.replaced = True
            if self._had_no_broker(worker):
                self.gave_up += 1
            else:
                self.problems.append(problem)
            self.start(worker.place)

    def _had_no_broker(self, worker: ChaosWorker) -> bool:
        """Whether it never came to work because the broker was down: a process gives up its first contact after 15 s,
        with this exit code, and is to be started again, as ``--workers`` does."""
        missed = any(end is None or end >= worker.started_at for _, end in self.outages)
        return worker.exit_code == BrokerUnavailable.exit_code and not worker.status_at and missed

    def stop(self) -> None:
        """End all, in order where possible."""
        for worker in self.live:
            if worker.paused:
                worker.resume()
        stop_all(self.workers)
        for worker in self.workers:
            worker.follow()


def _free(process: Path) -> bool:
    lock = try_lock(process, create=False)
    if lock is not None:
        os.close(lock)
    return lock is not None


def copied(process: Path, scratch: Path) -> dict[str, Path]:
    """Copies of the databases in the directory of a dead process, by task.

    Each is locked meanwhile, so that nobody opens it; opening one changes it.

    Args:
        process: the directory.
        scratch: for the copies.
    """
    found = {}
    for task in sorted((process / "tasks").glob(f"{STORE}-repartition_*")):
        lock = try_lock(task, create=False)
        if lock is None:
            continue
        try:
            if (task / "db" / "CURRENT").exists():
                found[task.name] = Path(tempfile.mkdtemp(dir=scratch)) / "db"
                shutil.copytree(task / "db", found[task.name])
        finally:
            os.close(lock)
    return found


def position(copy: Path) -> int | None:
    """The changelog position that the store in a copy reflects; the copy is deleted."""
    try:
        backend = RocksBackend(copy, [STORE], Memory(8 << 20, 8 << 20))
        found = backend.positions().get(STORE)
        backend.close()
    finally:
        shutil.rmtree(copy.parent, ignore_errors=True)
    return found
