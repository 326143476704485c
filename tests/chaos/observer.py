"""What is seen from outside while it happens: when outputs came, how long readers were held up, what transactions did.

Rule of this module: everything is asked of the broker by clients of our own, as a downstream application would.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streamstate.engine.task.store_marks import MARK_KEY
from tests.chaos.checker import Digest, Output
from tests.integration.support import Cluster

__all__ = ["Blocked", "Watch", "committed_between", "read_all", "transactions", "unfinished"]

log = logging.getLogger("tests.chaos.client")

BATCH = 5_000
ANSWER_S = 60
# Statuses in values of __transaction_state.
COMPLETE_COMMIT, COMPLETE_ABORT = 4, 5
STATUSES = {1: "ongoing", 2: "being committed", 3: "being aborted", 6: "dead", 7: "being fenced"}
TRANSACTION_STATE = "__transaction_state"


def _consumer(cluster: Cluster) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": "chaos-observer",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 10,
            "reconnect.backoff.max.ms": 200,
        },
        # What it says of a broker that is down is no news here.
        logger=log,
    )


def _patiently(cluster: Cluster, topic: str, *, committed: bool = False) -> dict[int, int]:
    """Log ends, also when the broker has just been restarted."""
    deadline = time.monotonic() + ANSWER_S
    while True:
        with contextlib.suppress(KafkaException, TimeoutError):
            ends = cluster.ends(topic, committed=committed)
            if ends:
                return ends
        if time.monotonic() > deadline:
            raise TimeoutError(f"the ends of {topic} are not known after {ANSWER_S} s")


def read_range(consumer: Consumer, topic: str, ranges: dict[int, tuple[int, int]]) -> Iterator[Any]:
    """Messages from start to end (exclusive) of these partitions; the consumer is assigned to them."""
    ranges = {partition: (start, end) for partition, (start, end) in ranges.items() if start < end}
    if not ranges:
        return
    consumer.assign([TopicPartition(topic, partition, start) for partition, (start, _) in ranges.items()])
    deadline = time.monotonic() + ANSWER_S
    while True:
        for message in consumer.consume(BATCH, 0.05):
            error = message.error()
            if error is not None:
                if error.retriable():
                    continue
                raise KafkaException(error)
            deadline = time.monotonic() + ANSWER_S
            taken: Any = message
            if taken.offset() < ranges[taken.partition()][1]:
                yield taken
        reached = consumer.position([TopicPartition(topic, partition) for partition in ranges])
        if all(position.offset >= ranges[position.partition][1] for position in reached):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic} cannot be read to {ranges}: it stands at {reached}")


def read_all(cluster: Cluster, topic: str) -> Iterator[Output]:
    """Every committed record of a topic."""
    consumer = _consumer(cluster)
    try:
        starts = cluster.starts(topic)
        ends = _patiently(cluster, topic)
        for message in read_range(consumer, topic, {p: (starts[p], ends[p]) for p in ends}):
            yield Output(message.partition(), message.offset(), message.key(), message.value())
    except TimeoutError as error:
        raise TimeoutError(f"{error}; transactions that have not ended: {unfinished(cluster)}") from error
    finally:
        consumer.close()


def committed_between(cluster: Cluster, topic: str, partition: int, start: int | None, end: int) -> int:
    """Committed entries of a changelog, its mark left out, from ``start`` (None: the log's start) to ``end``."""
    consumer = _consumer(cluster)
    try:
        first = cluster.starts(topic)[partition] if start is None else start
        found = read_range(consumer, topic, {partition: (first, end)})
        return sum(message.key() != MARK_KEY for message in found)
    finally:
        consumer.close()


class Watch:
    """Follows the output topic from its start, as a reader of committed records does; a thread.

    Attributes:
        seen: records so far.
        digest: of their keys and values, to compare with what a later reader gets.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._topic = topic
        self._partitions = sorted(_patiently(cluster, topic))
        self._arrivals: dict[int, list[float]] = {partition: [] for partition in self._partitions}
        self.seen = 0
        self.digest = Digest()
        self._stop = threading.Event()
        self._consumer = _consumer(cluster)
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in self._partitions])
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._take(self._consumer.consume(BATCH, 0.05))
        except BaseException as error:  # noqa: BLE001 - raised again where the watch is asked
            self._failure = error

    def _take(self, messages: Sequence[Any]) -> None:
        now = time.monotonic()
        came = set()
        for message in messages:
            error = message.error()
            if error is not None:
                if error.retriable() or not error.fatal():
                    continue
                raise KafkaException(error)
            came.add(message.partition())
            self.digest.add(message.partition(), (message.key() or b"") + b"\0" + (message.value() or b""))
            self.seen += 1
        for partition in came:
            self._arrivals[partition].append(now)

    def check(self) -> None:
        """Raise what ended it."""
        if self._failure is not None:
            raise self._failure

    def all_since(self, moment: float) -> bool:
        """Whether every partition has brought something since."""
        self.check()
        return all(times and times[-1] > moment for times in self._arrivals.values())

    def longest_gap_s(self, begin: float, end: float) -> float:
        """The longest time without an output that a partition had, of those that overlap the interval.

        Measured from a partition's last output before to its first after.
        """
        return max(_longest_gap(times, begin, end) for times in self._arrivals.values())

    def silence_s(self, begin: float, end: float) -> float:
        """The same over all partitions together: nothing came at all."""
        return _longest_gap(sorted(moment for times in self._arrivals.values() for moment in times), begin, end)

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(10)
        self._consumer.close()


def _longest_gap(times: Sequence[float], begin: float, end: float) -> float:
    first = max(0, bisect_left(times, begin) - 1)
    last = bisect_left(times, end)
    around = [*times[first : last + 1]]
    # Nothing has come since: the gap is still open.
    if last >= len(times):
        around.append(end)
    return max((after - before for before, after in pairwise(around)), default=0.0)


class Blocked:
    """How long readers of committed records are held up by what a dead process left open; a thread.

    Made at the moment of the kill.

    Attributes:
        held: partitions with something uncommitted at that moment.
        seconds: until all of them could be read on; None while they cannot.
    """

    def __init__(self, cluster: Cluster, topic: str, limit_s: float) -> None:
        self._cluster, self._topic = cluster, topic
        self._began = time.monotonic()
        self.seconds: float | None = None
        self.held: dict[int, int] = {}
        self._limit_s = limit_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="blocked", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        stable = _patiently(self._cluster, self._topic, committed=True)
        ends = _patiently(self._cluster, self._topic)
        self.held = {partition: stable[partition] for partition, end in ends.items() if stable[partition] < end}
        left = dict(self.held)
        while left and not self._stop.wait(0.02) and time.monotonic() - self._began < self._limit_s:
            stable = _patiently(self._cluster, self._topic, committed=True)
            left = {partition: offset for partition, offset in left.items() if stable[partition] <= offset}
        if not left:
            self.seconds = time.monotonic() - self._began

    def result(self) -> float | None:
        """Seconds; 0 when nothing was open; None when they were still held up at the limit."""
        self._thread.join(self._limit_s + ANSWER_S)
        return self.seconds if self.held else 0.0

    def stop(self) -> None:
        """Give up."""
        self._stop.set()


def _transaction_states(cluster: Cluster) -> Iterator[tuple[bytes, tuple[int, int, int]]]:
    """What the coordinator has written down, oldest first: transactional id; producer id, its epoch, status."""
    consumer = _consumer(cluster)
    try:
        ends = _patiently(cluster, TRANSACTION_STATE)
        starts = cluster.starts(TRANSACTION_STATE)
        for message in read_range(consumer, TRANSACTION_STATE, {p: (starts[p], ends[p]) for p in ends}):
            key, value = message.key(), message.value()
            # The key: version and length in 2 bytes each (version 0), then the id. The value: version (2), producer
            # id (8), its epoch (2), its time-out (4), the status (1).
            if key is not None and value is not None:
                producer, epoch, _, status = struct.unpack_from(">qhib", value, 2)
                yield key[4:], (producer, epoch, status)
    finally:
        consumer.close()


def transactions(cluster: Cluster, prefix: str) -> tuple[int, int]:
    """Transactions that the coordinator has completed, for ids with this prefix: committed and aborted."""
    states = _transaction_states(cluster)
    found = Counter(status for name, (_, _, status) in states if name.startswith(prefix.encode()))
    return found[COMPLETE_COMMIT], found[COMPLETE_ABORT]


def unfinished(cluster: Cluster) -> list[str]:
    """Transactions that the coordinator has not completed, for people: why readers of committed records wait."""
    return [
        f"{name.decode(errors='replace')}: producer {producer} epoch {epoch}, {STATUSES[status]}"
        for name, (producer, epoch, status) in dict(_transaction_states(cluster)).items()
        if status in STATUSES
    ]
