"""``python -m tests.chaos.soak_memory``: ten million keys in one process, within a budget for its memory.

Each key is counted once, then a tenth as many updates strike keys at random. Every output is checked, the memory of the
process is measured all the time, and its peak is held against a bound whose parts are settings and what was measured
before the first record. See docs/chaos.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table
from streamstate_cli.demonstration.interrupts import Interrupted, Interrupts
from streamstate_cli.demonstration.workers import COMMAND, Worker

from streamstate.broker import EmbeddedBroker
from streamstate.kafka.consumer import READER_DEFAULTS
from streamstate.kafka.producer import DEFAULTS as PRODUCER_DEFAULTS
from tests.chaos.observer import read_all
from tests.chaos.program import START_TIMEOUT
from tests.chaos.topology import SOAK_INPUT, SOAK_OUTPUT
from tests.chaos.view import View
from tests.integration.support import Cluster

log = logging.getLogger("tests.chaos.client")

MIB = 1 << 20
# What the issue calls the budget for caches and staging: 512 MiB.
BUDGETS = {"cache-size": 160, "staging-size": 32, "block-cache-size": 160, "write-buffer-size": 160}
# Long, so that it is the staging budget that makes the process commit.
COMMIT_INTERVAL = "9s"
PARTITIONS = 4
# Odd and near the golden section of 2**32: keys come in no order.
SCATTER = 2_654_435_769
STALLED_S = 120.0
# Once the updates have read all over the state, and every cache is full, memory must not grow any more.
MOST_GROWTH_MIB = 64.0


@dataclass(frozen=True, slots=True)
class Bound:
    """What the process may need, in MiB.

    Attributes:
        budget: caches, staging, RocksDB's blocks and write buffers, as set.
        start: the process before its first record: interpreter, libraries, clients.
        consumer_queue, producer_queue: what the clients may hold, as they are set by default.
        sealed: of staging there are two copies while it is committed: Python's objects and the stored bytes.
        allocator: what the allocator may waste: an eighth of all.
    """

    budget: float
    start: float
    consumer_queue: float
    producer_queue: float
    sealed: float

    @property
    def allocator(self) -> float:
        return (self.budget + self.consumer_queue + self.producer_queue + self.sealed) / 8

    @property
    def total(self) -> float:
        """The bound."""
        parts = (self.budget, self.start, self.consumer_queue, self.producer_queue, self.sealed, self.allocator)
        return sum(parts)


def keys(count: int, updates: int, seed: int) -> Iterator[bytes]:
    """Each of ``count`` keys once, in no order, then ``updates`` of them at random."""
    for number in range(count):
        yield b"key-%010d" % (number * SCATTER % (1 << 32))
    chance = random.Random(seed)
    for _ in range(updates):
        yield b"key-%010d" % (chance.randrange(count) * SCATTER % (1 << 32))


class Feeder:
    """A thread that produces as fast as it can.

    Attributes:
        fed: records so far.
    """

    def __init__(self, bootstrap_servers: str, records: Iterator[bytes]) -> None:
        self.fed = 0
        self.failures: list[str] = []
        self._records = records
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 20,
                "partitioner": "murmur2_random",
                "delivery.report.only.error": True,
                "on_delivery": lambda error, message: self.failures.append(str(error)) if error else None,
            },
            logger=log,
        )
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        produce, poll = self._producer.produce, self._producer.poll
        for key in self._records:
            while True:
                try:
                    produce(SOAK_INPUT, b"1", key)
                    break
                except BufferError:
                    poll(0.05)
            self.fed += 1
            if self.fed % 1_000 == 0:
                poll(0)
                if self._stop.is_set():
                    return
        left = self._producer.flush(120)
        if left:
            self.failures.append(f"{left} records were not acknowledged")

    @property
    def done(self) -> bool:
        """Whether all is acknowledged."""
        if self.failures:
            raise RuntimeError(f"feeding failed: {self.failures[:3]}")
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End, also before all is fed."""
        self._stop.set()
        self._thread.join(130)


def resident_mib(pid: int) -> float | None:
    """Memory that the process has resident now; None when it has ended."""
    answer = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return int(answer.stdout) / 1024 if answer.stdout.strip() else None


def peak_mib(pid: int) -> float | None:
    """The most it ever had, as Linux keeps it; None elsewhere."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


@dataclass(slots=True)
class Result:
    """What was measured.

    Attributes:
        peak: the most memory the process had.
        keyed: the most it had until every key was counted once.
        early, late: medians while the first and the last third of the updates were processed.
        wrong: outputs and keys that are not as they must be.
    """

    keys: int
    records: int
    seconds: float
    commits: int
    bound: Bound
    peak: float
    keyed: float
    early: float
    late: float
    state_mib: float
    wrong: int

    @property
    def violations(self) -> list[str]:
        """In words."""
        found = []
        if self.wrong:
            found.append(f"{self.wrong} outputs or keys are not as they must be")
        if self.peak > self.bound.total:
            found.append(f"the peak of {self.peak:.0f} MiB is above the bound of {self.bound.total:.0f} MiB")
        if self.late - self.early > MOST_GROWTH_MIB:
            found.append(f"during the updates memory grew from {self.early:.0f} to {self.late:.0f} MiB")
        return found


class Soak:
    """One soak.

    Args:
        count: keys.
        directory: for state, logs and the broker.
    """

    def __init__(self, count: int, directory: Path) -> None:
        self.count, self.updates = count, count // 10
        self.records = self.count + self.updates
        self._directory = directory
        self.feeder: Feeder | None = None
        self.worker: Worker | None = None
        self.samples: list[tuple[int, float]] = []
        self._peak = 0.0

    def run(self, stack: ExitStack) -> Result:
        """All of it; what it starts is stopped with the stack."""
        broker = EmbeddedBroker(data_dir=self._directory / "kafka", heap_mb=1024, start_timeout=START_TIMEOUT)
        stack.callback(broker.stop)
        broker.start()
        cluster = Cluster(broker.bootstrap_servers)
        for topic in (SOAK_INPUT, SOAK_OUTPUT):
            cluster.create(topic, PARTITIONS)
        command = [
            *COMMAND, f"{Path(__file__).with_name('topology.py')}:soak", "--json",
            "--bootstrap-servers", broker.bootstrap_servers, "--state-dir", str(self._directory / "state"),
            "--commit-interval", COMMIT_INTERVAL,
        ]  # fmt: skip
        for name, mib in BUDGETS.items():
            command += [f"--{name}", f"{mib}MiB"]
        worker = self.worker = Worker(1, command, self._directory / "worker.log")
        stack.callback(lambda: self._end(worker))
        self._until(lambda: worker.status.running == PARTITIONS, "the tasks to run")
        start = self._sample() or 0.0
        began = time.monotonic()
        feeder = self.feeder = Feeder(broker.bootstrap_servers, keys(self.count, self.updates, 1))
        stack.callback(feeder.stop)
        self._until(lambda: feeder.done and worker.status.committed >= self.records, "all records to be committed")
        seconds = time.monotonic() - began
        self._peak = max(self._peak, peak_mib(worker.pid) or 0.0)
        worker.terminate()
        worker.wait(time.monotonic() + 60)
        worker.check()
        state = sum(path.stat().st_size for path in (self._directory / "state").rglob("*") if path.is_file()) / MIB
        bound = Bound(
            sum(BUDGETS.values()), start, READER_DEFAULTS["queued.max.messages.kbytes"] / 1024,
            PRODUCER_DEFAULTS["queue.buffering.max.kbytes"] / 1024, BUDGETS["staging-size"],
        )  # fmt: skip
        return Result(
            self.count, self.records, round(seconds, 1), worker.status.commits, bound, round(self._peak, 1),
            max(mib for processed, mib in self.samples if processed <= self.count),
            self._median(0, 1 / 3), self._median(2 / 3, 1), round(state, 1), self._wrong(cluster),
        )  # fmt: skip

    def _sample(self) -> float | None:
        assert self.worker is not None
        resident = resident_mib(self.worker.pid)
        if resident is not None:
            self._peak = max(self._peak, resident)
            self.samples.append((self.worker.status.processed, resident))
        return resident

    def _median(self, begin: float, end: float) -> float:
        """Over a part of the updates."""
        low, high = self.count + begin * self.updates, self.count + end * self.updates
        return round(median(mib for processed, mib in self.samples if low <= processed <= high), 1)

    def _until(self, condition: object, what: str) -> None:
        assert callable(condition)
        assert self.worker is not None
        moved_at, processed = time.monotonic(), -1
        while not condition():
            self.worker.check()
            self._sample()
            if self.worker.status.processed != processed:
                moved_at, processed = time.monotonic(), self.worker.status.processed
            elif time.monotonic() - moved_at > STALLED_S:
                raise TimeoutError(f"nothing moved for {STALLED_S:.0f} s, waiting for {what}\n{self.worker.log_tail()}")
            time.sleep(0.5)

    def _wrong(self, cluster: Cluster) -> int:
        """Each key's counts must be 1, 2, 3 ... n. Of keys that were counted once only their number and their sum are
        kept; those of the updates are compared one by one."""
        wanted: dict[bytes, int] = {}
        chance = random.Random(1)
        for _ in range(self.updates):
            key = b"key-%010d" % (chance.randrange(self.count) * SCATTER % (1 << 32))
            wanted[key] = wanted.get(key, 1) + 1
        first, wrong, last = 0, 0, dict.fromkeys(wanted, 0)
        unseen = sum(number * SCATTER % (1 << 32) for number in range(self.count))
        for output in read_all(cluster, SOAK_OUTPUT):
            key, count = output.key or b"", int(output.value or b"0")
            if count == 1:
                first += 1
                unseen -= int(key[4:])
            if key in last:
                wrong += count != last[key] + 1
                last[key] = count
            else:
                wrong += count != 1
        wrong += abs(first - self.count) + (unseen != 0)
        return wrong + sum(last[key] != number for key, number in wanted.items())

    def _end(self, worker: Worker) -> None:
        worker.terminate()
        worker.wait(time.monotonic() + 20)

    def numbers(self) -> str:
        """The line of progress."""
        if self.worker is None or self.feeder is None or not self.samples:
            return "starting"
        status = self.worker.status
        return (
            f"fed {self.feeder.fed:,} of {self.records:,}, processed {status.processed:,}, {status.commits:,} commits, "
            f"{self.samples[-1][1]:,.0f} MiB resident, peak {self._peak:,.0f} MiB"
        )


def draw(result: Result) -> Table:
    """The result as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    bound = result.bound
    rows = [
        ("keys", f"{result.keys:,}"),
        ("records", f"{result.records:,}"),
        ("records per second", f"{result.records / result.seconds:,.0f}"),
        ("commits", f"{result.commits:,}"),
        ("state on disk", f"{result.state_mib:,.0f} MiB"),
        ("peak of resident memory", f"{result.peak:,.0f} MiB"),
        ("  until every key was counted once", f"{result.keyed:,.0f} MiB"),
        ("  median of the first third of the updates", f"{result.early:,.0f} MiB"),
        ("  median of the last third of the updates", f"{result.late:,.0f} MiB"),
        ("bound", f"{bound.total:,.0f} MiB"),
        ("  budget: caches, staging, blocks, write buffers", f"{bound.budget:,.0f} MiB"),
        ("  the process before its first record", f"{bound.start:,.0f} MiB"),
        ("  the consumer's queue", f"{bound.consumer_queue:,.0f} MiB"),
        ("  the producer's queue", f"{bound.producer_queue:,.0f} MiB"),
        ("  staging once more, while it is committed", f"{bound.sealed:,.0f} MiB"),
        ("  the allocator's waste", f"{bound.allocator:,.0f} MiB"),
        ("outputs or keys that are wrong", f"{result.wrong:,}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def main() -> int:
    """Run it and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak_memory", description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there")
    given = parser.parse_args()
    log.setLevel(logging.CRITICAL)
    console = Console(width=None if sys.stdout.isatty() else 120)
    interrupts = Interrupts()
    try:
        with interrupts, ExitStack() as stack:
            try:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamstate-soak-")))
                soak = Soak(given.keys, directory)
                with View(console, soak.numbers):
                    result = soak.run(stack)
            finally:
                # What follows must not be cut short.
                interrupts.hold()
    except Interrupted as interrupted:
        console.print(f"interrupted by {interrupted}; everything is stopped")
        return 128 + interrupted.number
    console.print(draw(result))
    if given.json is not None:
        numbers = {**asdict(result), "bound_mib": result.bound.total, "samples": soak.samples}
        given.json.write_text(json.dumps(numbers, indent=1) + "\n")
    for violation in result.violations:
        console.print(f"VIOLATION: {violation}", style="red", markup=False, highlight=False)
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
