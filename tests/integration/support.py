"""What the integration tests share: worker processes, topics, feeding, reading, and the check of every word's counts.

Rule of this module: nothing here knows the engine. Workers are processes that print JSON lines; everything else is
asked of the broker with plain clients.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from tests.broker_support import eventually

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("worker_main.py")
DEADLINE = timedelta(seconds=60)
SESSION_MS = 3_000
GROUP_PROPERTIES = {"session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 500}
VOCABULARY = [f"{a}{b}{c}" for a in ("ka", "me", "ri", "so") for b in ("lo", "tu", "ne") for c in ("", "n", "s", "ü")]

Headers = list[tuple[str, bytes | None]]


# -- the check ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """A record as a reader got it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = -1
    headers: Headers = field(default_factory=list)


def check_counts(outputs: Iterable[Record], occurrences: Mapping[str, int], *, extras: bool = False) -> None:
    """Every word's outputs, in the order of its partition's offsets, are exactly 1, 2, 3 ... n.

    Args:
        outputs: in the order in which they were read, which within a partition is the order of offsets.
        occurrences: n by word.
        extras: for at least once: words may be counted more often, but never fewer times than fed.

    Raises:
        AssertionError: what is wrong, for the first few words.
    """
    counts: dict[str, list[int]] = {}
    homes: dict[str, set[int]] = {}
    for record in outputs:
        assert record.key is not None, f"an output without a key: {record}"
        assert record.value is not None, f"an output without a value: {record}"
        counts.setdefault(record.key.decode(), []).append(int(record.value))
        homes.setdefault(record.key.decode(), set()).add(record.partition)
    wrong = []
    for word in sorted({*counts, *occurrences}):
        seen, fed = counts.get(word, []), occurrences.get(word, 0)
        if len(homes.get(word, ())) > 1:
            wrong.append(f"{word!r} is in partitions {sorted(homes[word])}")
        if extras:
            if fed and (not seen or max(seen) < fed or len(seen) < fed):
                wrong.append(f"{word!r} was fed {fed} times, counted to {max(seen, default=0)} by {len(seen)} outputs")
            if not fed:
                wrong.append(f"{word!r} was never fed")
        elif seen != list(range(1, fed + 1)):
            wrong.append(_difference(word, seen, fed))
    if wrong:
        raise AssertionError(f"{len(wrong)} words are wrong: " + "; ".join(wrong[:5]))


def _difference(word: str, seen: list[int], fed: int) -> str:
    at = next((i for i, count in enumerate(seen) if count != i + 1), len(seen))
    near = seen[max(0, at - 2) : at + 6]
    return f"{word!r} was fed {fed} times and has {len(seen)} outputs, wrong from number {at + 1} on, near {near}"


# -- the broker --------------------------------------------------------------------------------------------


class Cluster:
    """Plain clients of one broker."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        # Without its lines about a broker that a test has killed.
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

    def create(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
        new = NewTopic(topic, num_partitions=partitions, config=dict(config or {}))
        self.admin.create_topics([new])[topic].result(30)

        def there() -> bool:
            # Known to the controller is not yet led by the broker.
            with contextlib.suppress(KafkaException):
                return len(self.ends(topic)) == partitions
            return False

        eventually(there, DEADLINE, f"topic {topic}")

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(30)
        eventually(lambda: self.partitions(topic) == 0, DEADLINE, f"the end of topic {topic}")

    def partitions(self, topic: str) -> int:
        found = self.admin.list_topics(timeout=10).topics.get(topic)
        return 0 if found is None or found.error is not None else len(found.partitions)

    def ends(self, topic: str, *, committed: bool = False) -> dict[int, int]:
        """Log end by partition; with ``committed`` the last stable offset."""
        return self._offsets(topic, OffsetSpec.latest(), committed)

    def starts(self, topic: str) -> dict[int, int]:
        return self._offsets(topic, OffsetSpec.earliest(), False)

    def _offsets(self, topic: str, which: Any, committed: bool) -> dict[int, int]:
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        asked = {TopicPartition(topic, number): which for number in range(self.partitions(topic))}
        futures = self.admin.list_offsets(asked, isolation_level=isolation, request_timeout=10)
        return {partition.partition: future.result(11).offset for partition, future in futures.items()}

    def open_transactions(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """Offsets that readers of committed records cannot pass, with how many are behind them."""
        held = {}
        for topic in topics:
            stable = self.ends(topic, committed=True)
            for partition, end in self.ends(topic).items():
                if stable[partition] < end:
                    held[topic, partition] = end - stable[partition]
        return held

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Committed offset by partition; -1001 where there is none."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": group})
        try:
            asked = [TopicPartition(topic, number) for number in range(self.partitions(topic))]
            return {found.partition: found.offset for found in consumer.committed(asked, timeout=10)}
        finally:
            consumer.close()

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        asked = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        for future in self.admin.delete_records(asked).values():
            future.result(30)

    def send(self, topic: str, records: Sequence[tuple[bytes | None, bytes | None]], **extra: Any) -> None:
        """(key, value) each, all acknowledged on return. ``extra``: partition, timestamp, headers for all."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "linger.ms": 5, "enable.idempotence": True})
        for key, value in records:
            producer.produce(topic, value, key, **extra)
        assert producer.flush(30) == 0, "records were not acknowledged"

    def read(self, topic: str, *, isolation: str = "read_committed") -> list[Record]:
        """All that is in the topic now."""
        reader = Reader(self, topic, isolation=isolation)
        try:
            return reader.drain()
        finally:
            reader.close()


class Reader:
    """Follows a topic outside any group, committed records only unless told otherwise."""

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        *,
        isolation: str = "read_committed",
        still_sensible: Callable[[], object] = lambda: None,
    ) -> None:
        self._cluster = cluster
        self._still_sensible = still_sensible
        self.topic = topic
        self.records: list[Record] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "group.id": "integration-test-reader",
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "fetch.wait.max.ms": 20,
            }
        )
        self._partitions = [TopicPartition(topic, number, 0) for number in range(cluster.partitions(topic))]
        assert self._partitions, f"topic {topic} does not exist"
        starts = cluster.starts(topic)
        for partition in self._partitions:
            partition.offset = starts[partition.partition]
        self._consumer.assign(self._partitions)

    def poll(self, timeout_s: float = 0.05) -> int:
        """Take what is there; how many records there are in all."""
        for message in self._consumer.consume(2_000, timeout_s):
            error = message.error()
            assert error is None or error.retriable() or not error.fatal(), error
            if error is None:
                self.records.append(
                    Record(
                        message.topic(),
                        message.partition(),
                        message.offset(),
                        message.key(),
                        message.value(),
                        message.timestamp()[1],
                        list(message.headers() or ()),
                    )
                )
        return len(self.records)

    def until(self, count: int, deadline: timedelta = DEADLINE) -> list[Record]:
        """Read until there are at least this many, or one of the application's processes says that it failed."""

        def there() -> bool:
            self._still_sensible()
            return self.poll() >= count

        try:
            eventually(there, deadline, f"{count} records in {self.topic}")
        except TimeoutError as error:
            raise TimeoutError(f"{error} There are {len(self.records)}.") from None
        return self.records

    def drain(self, deadline: timedelta = DEADLINE) -> list[Record]:
        """Read to the present end of the log, transaction markers included."""
        ends = self._cluster.ends(self.topic)
        starts = self._cluster.starts(self.topic)

        def there() -> bool:
            self.poll()
            positions = self._consumer.position([TopicPartition(p.topic, p.partition) for p in self._partitions])
            return all(max(p.offset, starts[p.partition]) >= ends[p.partition] for p in positions)

        eventually(there, deadline, f"the end of {self.topic}: {ends}")
        return self.records

    def close(self) -> None:
        self._consumer.close()


# -- feeding -----------------------------------------------------------------------------------------------


def sentences(seed: int) -> Iterable[str]:
    """Lines of one to eight words, the same ones for the same seed; some words are far more frequent."""
    chance = random.Random(seed)
    while True:
        yield " ".join(VOCABULARY[int(len(VOCABULARY) * chance.random() ** 2)] for _ in range(chance.randint(1, 8)))


def words_of(records: Iterable[Record]) -> Counter[str]:
    """Occurrences of every word, recomputed from what is in the input topic."""
    return Counter(word for record in records if record.value for word in record.value.decode().split())


class Feeder:
    """Writes sentences to a topic, in step or in the background."""

    def __init__(self, cluster: Cluster, topic: str, seed: int) -> None:
        self._producer = Producer(
            {"bootstrap.servers": cluster.bootstrap_servers, "linger.ms": 5, "enable.idempotence": True}
        )
        self._cluster = cluster
        self.topic = topic
        self._partitions = cluster.partitions(topic)
        self._source = iter(sentences(seed))
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lines = 0
        self.words: Counter[str] = Counter()
        self.refused: list[str] = []

    def feed(self, lines: int) -> None:
        """Write this many and wait for their acknowledgement."""
        self._write(lines)
        assert self._producer.flush(60) == 0, "lines were not acknowledged"
        assert not self.refused, self.refused

    def _write(self, lines: int) -> None:
        for _ in range(lines):
            line = next(self._source)
            self._producer.produce(
                self.topic, line.encode(), partition=self.lines % self._partitions, on_delivery=self._delivered
            )
            self.lines += 1
            self.words.update(line.split())
        self._producer.poll(0)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.refused.append(str(error))

    def start(self, lines_per_s: int) -> None:
        """Go on writing in the background, at this rate."""
        portion = max(1, lines_per_s // 50)

        def write() -> None:
            while not self._stop.wait(0.02):
                self._write(portion)

        self._stop.clear()
        self._thread = threading.Thread(target=write, name="feeder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the background writing; everything is acknowledged on return."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        self.feed(0)

    def truth(self) -> Counter[str]:
        """Occurrences by word, from the input topic itself, which must agree with what was sent."""
        found = words_of(self._cluster.read(self.topic))
        assert found == self.words, "the input topic does not hold what was fed"
        return found


# -- worker processes --------------------------------------------------------------------------------------


class WorkerProcess:
    """One process of an application; see ``worker_main.py`` for what it takes and prints."""

    def __init__(self, order: Mapping[str, Any], log: Path) -> None:
        self.log = log
        self.error_expected = False
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._errors = log.open("ab")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, str(RUNNER), json.dumps(order)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            event["received"] = time.monotonic()
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self.process.pid

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        with self._changed:
            return [event for event in self.events if event["event"] == kind]

    @property
    def statuses(self) -> list[dict[str, Any]]:
        return self.of_kind("status")

    @property
    def status(self) -> dict[str, Any]:
        """The newest numbers; those of an idle worker before the first."""
        statuses = self.statuses
        return statuses[-1] if statuses else NOTHING_YET

    @property
    def running(self) -> set[str]:
        return {task for task, phase in self.status["tasks"].items() if phase == "running"}

    def wait(
        self, condition: Callable[[dict[str, Any]], object], what: str, deadline: timedelta = DEADLINE
    ) -> dict[str, Any]:
        """The first status from now on for which the condition holds."""
        until = time.monotonic() + deadline.total_seconds()
        with self._changed:
            while True:
                newest = next((e for e in reversed(self.events) if e["event"] == "status"), None)
                if newest is not None and condition(newest):
                    return newest
                if self.process.poll() is not None and not self._reader.is_alive():
                    raise AssertionError(f"the worker ended while waiting for {what}; {self.tail()}")
                if time.monotonic() > until:
                    raise TimeoutError(f"waited {deadline} for {what}; last status {newest}; {self.tail()}")
                self._changed.wait(0.1)

    def tail(self) -> str:
        self._errors.flush()
        lines = self.log.read_text(errors="replace").splitlines()[-30:]
        return f"exit status {self.process.poll()}, log ends with:\n" + "\n".join(lines)

    def wait_tasks(self, count: int, deadline: timedelta = DEADLINE) -> dict[str, Any]:
        """Until this many tasks are there and all run."""
        return self.wait(
            lambda s: len(s["tasks"]) == count and set(s["tasks"].values()) == {"running"},
            f"{count} running tasks",
            deadline,
        )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self._ended(10)

    def stop(self, timeout_s: float = 40) -> dict[str, Any]:
        """SIGTERM; must end with 0. Its last status."""
        self.process.terminate()
        assert self._ended(timeout_s) == 0, self.tail()
        return self.status

    def wait_error(self, timeout_s: float = 60) -> dict[str, Any]:
        """The error with which it ends by itself."""
        self.error_expected = True
        code = self._ended(timeout_s)
        errors = self.of_kind("error")
        assert errors, self.tail()
        assert code == errors[0]["exit_code"], self.tail()
        return errors[0]

    def _ended(self, timeout_s: float) -> int:
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the worker does not end; {self.tail()}") from None
        self._reader.join(10)
        return code

    def clean_up(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
                self.process.kill()
            self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


NOTHING_YET: dict[str, Any] = {
    "tasks": {}, "processed": 0, "committed": 0, "commits": 0, "rollbacks": 0, "restored": 0, "failed": 0, "sent": 0,
}  # fmt: skip


class Application:
    """One test's application: an id, its topics, its processes, a directory."""

    def __init__(self, cluster: Cluster, application_id: str, directory: Path) -> None:
        self.cluster = cluster
        self.id = application_id
        self.directory = directory
        self.workers: list[WorkerProcess] = []
        self._readers: list[Reader] = []
        self._feeders: list[Feeder] = []

    def topic(self, name: str) -> str:
        """A topic's name that no other test has."""
        return f"{self.id}.{name}"

    def create(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> str:
        topic = self.topic(name)
        self.cluster.create(topic, partitions, config)
        return topic

    def internal(self, name: str) -> str:
        return f"{self.id}-{name}"

    def feeder(self, topic: str, seed: int) -> Feeder:
        feeder = Feeder(self.cluster, topic, seed)
        self._feeders.append(feeder)
        return feeder

    def reader(self, topic: str, *, isolation: str = "read_committed") -> Reader:
        reader = Reader(self.cluster, topic, isolation=isolation, still_sensible=self._no_errors)
        self._readers.append(reader)
        return reader

    def _no_errors(self) -> None:
        for worker in self.workers:
            errors = [] if worker.error_expected else worker.of_kind("error")
            assert not errors, f"a worker failed: {errors[0]}"

    def start(
        self,
        topology: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        state: str = "state",
        hooks: Mapping[str, Any] | None = None,
        kafka: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> WorkerProcess:
        """Start a process of the application.

        Args:
            topology: name of a function in ``topologies.py``.
            arguments: its arguments.
            state: name of the state directory.
            hooks: see ``worker_main.py``.
            kafka: client properties beside the group's.
            settings: fields of ``streamstate.app.Settings``; durations in seconds.
        """
        group = {} if settings.get("group_protocol") == "consumer" else GROUP_PROPERTIES
        order = {
            "topology": topology,
            "arguments": dict(arguments or {}),
            "hooks": dict(hooks or {}),
            "settings": {
                "bootstrap_servers": self.cluster.bootstrap_servers,
                "application_id": self.id,
                "state_dir": str(self.directory / state),
                "kafka": {**{f"consumer.{name}": value for name, value in group.items()}, **(kafka or {})},
                **settings,
            },
        }
        worker = WorkerProcess(order, self.directory / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for feeder in self._feeders:
            feeder._stop.set()
        for worker in self.workers:
            worker.clean_up()
        for reader in self._readers:
            reader.close()


def freeze_mid_transaction(
    worker: WorkerProcess, cluster: Cluster, topics: Sequence[str]
) -> dict[tuple[str, int], int]:
    """SIGSTOP the worker, alone on these topics, at a moment when it has a transaction open on one of them."""

    def frozen() -> dict[tuple[str, int], int]:
        os.kill(worker.pid, signal.SIGSTOP)
        # Requests under way at the moment of the stop settle: only what stays the same is held by a transaction.
        before = cluster.open_transactions(topics)
        held = cluster.open_transactions(topics)
        if not held or held != before:
            os.kill(worker.pid, signal.SIGCONT)
            return {}
        return held

    found: list[dict[tuple[str, int], int]] = []

    def attempt() -> bool:
        found.append(frozen())
        return bool(found[-1])

    eventually(attempt, DEADLINE, "an open transaction")
    return found[-1]
