"""The course of the demonstration.

Rule of this module: what comes next is decided by what Kafka and the workers say, not by waiting; and whatever
happens, everything that was started is stopped.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import streamstate_cli
from streamstate.broker import EmbeddedBroker
from streamstate.errors import ConfigError, StreamStateError
from streamstate.rocksdb.directory import try_lock
from streamstate_cli.demonstration import data
from streamstate_cli.demonstration.feeder import Feeder
from streamstate_cli.demonstration.interrupts import Interrupts
from streamstate_cli.demonstration.proof import GROUPINGS, check, tally
from streamstate_cli.demonstration.report import Recovery, Report
from streamstate_cli.demonstration.topics import APPLICATION, SOURCE, Cluster, Progress
from streamstate_cli.demonstration.view import Snapshot, View, WorkerRow
from streamstate_cli.demonstration.workers import COMMAND, Worker, stop_all

__all__ = ["Show", "topology_file"]

POLL_S = 0.25
STATE = "state"
STALLED_S = 60
# A killed process is noticed by its silence.
SESSION_TIMEOUT_MS = 6_000


def topology_file() -> Path:
    """``flight_delays.py``: in an installation beside this package's modules, else in the source tree.

    Raises:
        ConfigError: it is in neither.
    """
    package = Path(streamstate_cli.__file__).parent
    places = [package / "topologies", package.parent.parent / "topologies"]
    for place in places:
        if (place / "flight_delays.py").is_file():
            return place / "flight_delays.py"
    raise ConfigError(f"flight_delays.py is in none of {', '.join(map(str, places))}: install streamstate again")


class Show:
    """One demonstration.

    Args:
        view: shows it.
        limit: how many flights; None: all.
        keep_state: leave the killed worker's local state to the replacement.
        command: how a worker is run, before its arguments.
    """

    def __init__(
        self, view: View, limit: int | None = None, *, keep_state: bool = False, command: Sequence[str] = COMMAND
    ) -> None:
        self._view = view
        self._limit = limit
        self._keep_state = keep_state
        self._command = command
        self._interrupts = Interrupts()
        self._began = time.monotonic()
        self._workers: list[Worker] = []
        self._total = 0
        self._victim: Worker | None = None
        self._replacement: Worker | None = None
        self._killed_at = 0.0
        self._killed_at_flights = 0
        self._victim_tasks = 0
        self._restored_before = 0

    def run(self) -> Report:
        """All of it.

        Raises:
            StreamStateError: something could not be started, a worker ended by itself, or nothing moved any more.
            Interrupted: by Ctrl-C, SIGTERM or SIGHUP.
        """
        with self._interrupts, ExitStack() as stack:
            try:
                return self._run(stack)
            finally:
                # What follows must not be cut short.
                self._interrupts.hold()

    def _run(self, stack: ExitStack) -> Report:
        source, topology = data.find(), topology_file()
        directory = Path(tempfile.mkdtemp(prefix="streamstate-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self._say("reading the flights, starting Apache Kafka")
        counting = stack.enter_context(ThreadPoolExecutor(1)).submit(lambda: tally(data.flights(source, self._limit)))
        broker = EmbeddedBroker()
        stack.callback(broker.stop)
        broker.start()
        cluster = Cluster(broker.bootstrap_servers)
        stack.callback(cluster.close)
        cluster.create_topics()
        expected = counting.result()
        self._total = sum(one.flights for one in next(iter(expected.values())).values())
        self._say(f"Kafka runs at {broker.bootstrap_servers} (pid {broker.pid}); two workers share {topology.name}")

        command = [
            *self._command, str(topology), "--json", "--bootstrap-servers", broker.bootstrap_servers,
            "--application-id", APPLICATION, "--state-dir", str(directory / STATE), "--workers", "1",
            "--set", f"session.timeout.ms={SESSION_TIMEOUT_MS}",
        ]  # fmt: skip
        stack.callback(lambda: stop_all(self._workers))
        for _ in range(2):
            self._start_worker(command, directory)
        feeder = Feeder(broker.bootstrap_servers, SOURCE, data.flights(source, self._limit))
        stack.callback(feeder.stop)
        feeder.start()
        with self._view:
            fed_from = time.monotonic()
            self._drive(cluster, feeder, command, directory)
            processing_s = time.monotonic() - fed_from
            self._say("all is processed; stopping the workers")
            stop_all(self._workers)
            for worker in self._workers:
                worker.check()
            self._view.show(Snapshot(self._elapsed(), self._total, self._total, self._total, 0, self._rows()))
            restored = sum(worker.status.restored for worker in self._workers) - self._restored_before
            self._say("comparing every output with the source file")
            checked = [check(topic, cluster.outputs(topic), expected[topic]) for topic in GROUPINGS]
        recovery = self._recovery(restored, cluster.changelog_records())
        return Report(
            self._total, checked, self._rows(), recovery, processing_s, total_s=time.monotonic() - self._began
        )

    def _drive(self, cluster: Cluster, feeder: Feeder, command: Sequence[str], directory: Path) -> None:
        """Feed, kill half way, replace, until nothing is left."""
        previous: Progress | None = None
        moved_at = time.monotonic()
        announced = False
        while True:
            for worker in self._workers:
                worker.check()
            progress = cluster.progress()
            # Records flow during all of it: the feeder stays a little ahead of the workers, and keeps a quarter
            # back until one of them is killed.
            ahead = min(progress.processed + self._total // 6, self._total * 3 // 4)
            feeder.allow(self._total if self._victim else ahead)
            # Half way, and the stores have something to lose.
            if self._victim is None and min(progress.processed, progress.aggregated) >= self._total // 2:
                self._kill(progress.processed, directory / STATE)
                self._replacement = self._start_worker(command, directory)
            elif not announced and self._replacement is not None and self._replacement.running_at is not None:
                announced = True
                status, took_s = self._replacement.status, self._replacement.running_at - self._killed_at
                self._say(
                    f"{self._replacement.name} runs {status.running} tasks, {took_s:.1f} s after the kill; it "
                    f"restored {status.restored:,} records"
                )
            self._view.show(
                Snapshot(self._elapsed(), self._total, feeder.fed, progress.processed, progress.lag, self._rows())
            )
            if previous != progress:
                previous, moved_at = progress, time.monotonic()
            elif feeder.done and announced and cluster.drained(progress):
                return
            elif time.monotonic() - moved_at > STALLED_S:
                logs = "\n".join(f"{worker.name}:\n{worker.log_tail()}" for worker in self._workers)
                raise StreamStateError(
                    f"Nothing has moved for {STALLED_S} s, with {progress.lag:,} records to go.\n{logs}"
                )
            time.sleep(POLL_S)

    def _start_worker(self, command: Sequence[str], directory: Path) -> Worker:
        number = len(self._workers) + 1
        with self._interrupts.held():
            worker = Worker(number, command, directory / f"worker-{number}.log")
            self._workers.append(worker)
        self._say(f"started worker {number} (pid {worker.pid})" + (" in its place" if self._victim else ""))
        return worker

    def _kill(self, processed: int, state: Path) -> None:
        # The one with the most state.
        victim = max(self._workers, key=lambda worker: (worker.status.running_outside(SOURCE), worker.number))
        self._victim_tasks, self._killed_at_flights = victim.status.running, processed
        with self._interrupts.held():
            self._killed_at = time.monotonic()
            victim.kill()
        self._victim = victim
        self._restored_before = sum(worker.status.restored for worker in self._workers)
        self._say(
            f"half of the flights are processed: killed worker {victim.number} (pid {victim.pid}, "
            f"{self._victim_tasks} tasks) with SIGKILL"
        )
        if not self._keep_state:
            _delete_abandoned(state)
            self._say("deleted its local state, as if its machine were gone")

    def _recovery(self, restored: int, changelog_records: int) -> Recovery:
        victim, replacement = self._victim, self._replacement
        assert victim is not None
        assert replacement is not None
        assert replacement.running_at is not None
        return Recovery(
            killed=victim.name,
            kept_state=self._keep_state,
            killed_pid=victim.pid,
            tasks=self._victim_tasks,
            at_flights=self._killed_at_flights,
            replacement=replacement.name,
            replacement_pid=replacement.pid,
            running_after_s=round(replacement.running_at - self._killed_at, 1),
            restored=restored,
            changelog_records=changelog_records,
        )

    def _rows(self) -> list[WorkerRow]:
        return [_row(worker) for worker in self._workers]

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _say(self, text: str) -> None:
        self._view.event(self._elapsed(), text)


def _delete_abandoned(state: Path) -> None:
    """Delete the task state that no live process holds: that of the one that was just killed."""
    for process in sorted((state / APPLICATION).glob("process-*")):
        lock = try_lock(process, create=False)
        if lock is not None:
            shutil.rmtree(process / "tasks", ignore_errors=True)
            os.close(lock)


def _row(worker: Worker) -> WorkerRow:
    status = worker.status
    return WorkerRow(
        worker.number,
        worker.pid,
        worker.state,
        status.processed,
        status.sent,
        status.commits,
        status.running if worker.alive else 0,
        status.restoring if worker.alive else 0,
        status.restored,
    )
