"""End-to-end latency: from the moment a record was due to the moment its result can be read, committed.

Rule of this module: a record's time stamp is the moment at which it was *due*, whether or not the feeder was late, and
every contender hands it on to the result. What waits in any queue is thereby counted.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.contenders import Contender
from benchmarks.expected import counts
from benchmarks.figures import percentile
from benchmarks.inputs import PARTITIONS, events
from benchmarks.process import ContenderFailed, Team
from benchmarks.runs import Bench, place, start
from benchmarks.verify import check, read_outputs
from benchmarks.workloads import Case

__all__ = ["run_latency"]

_READY_S = 120
_DRAIN_S = 60
_SLICE_S = 0.002
# Records that show that a contender runs, before the clock starts.
_PROBES = 200


class Feeder(threading.Thread):
    """Offers records at a fixed rate, by schedule."""

    def __init__(self, servers: str, topic: str, rate: int, seconds: float) -> None:
        super().__init__(name="feeder", daemon=True)
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "linger.ms": 0,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "log_level": 2,
            }
        )
        self._topic = topic
        self._rate = rate
        self._records = events(_PROBES + int(rate * seconds))
        self._left = int(rate * seconds)
        self.keys: Counter[bytes] = Counter()
        self.sent = 0
        self.worst_lateness_s = 0.0
        self._stopped = threading.Event()

    def probe(self) -> None:
        """Send the first few, to see that they come out."""
        for _ in range(_PROBES):
            self._send(time.time_ns() // 1_000_000)
        self._producer.flush()

    def _send(self, due_ms: int) -> None:
        event = next(self._records)
        key = event.key.encode()
        self._producer.produce(self._topic, event.json(), key, -1, None, None, due_ms)
        self.keys[key] += 1
        self.sent += 1

    def run(self) -> None:
        """Until all are sent."""
        began, began_ms = time.monotonic(), time.time_ns() / 1_000_000
        number = 0
        while number < self._left and not self._stopped.is_set():
            due = int((time.monotonic() - began) * self._rate)
            if number < due:
                self.worst_lateness_s = max(self.worst_lateness_s, time.monotonic() - began - number / self._rate)
            while number < min(due, self._left):
                self._send(int(began_ms + number * 1_000 / self._rate))
                number += 1
            self._producer.poll(0)
            time.sleep(_SLICE_S)
        self._producer.flush()

    def stop(self) -> None:
        """Give up."""
        self._stopped.set()


class Reader(threading.Thread):
    """Notes for each committed result when it was due and how long after that it could be read."""

    def __init__(self, servers: str, topic: str) -> None:
        super().__init__(name="reader", daemon=True)
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": f"{topic}-latency",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 1,
                "log_level": 2,
            }
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        # (due, latency), both in ms.
        self.seen: list[tuple[int, float]] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        """Until it is stopped."""
        seen = self.seen
        while not self._stopped.is_set():
            first: Any = self._consumer.poll(0.05)
            if first is None:
                continue
            messages = [first, *self._consumer.consume(10_000, 0)]
            now_ms = time.time_ns() / 1_000_000
            for message in messages:
                if message.error() is None:
                    due = message.timestamp()[1]
                    seen.append((due, now_ms - due))
        self._consumer.close()

    def stop(self) -> None:
        """No more."""
        self._stopped.set()
        self.join()


def run_latency(bench: Bench, case: Case, contender: Contender) -> dict[str, Any]:
    """Percentiles over the measured seconds, after those of the warm-up."""
    warm_up_s, measured_s = bench.latency_s
    rate = case.workload.rate
    with place(bench, case, contender) as at, Team() as team:
        topic = f"{at.application_id}.in"
        bench.create(topic)
        feeder = Feeder(bench.servers, topic, rate, warm_up_s + measured_s)
        reader = Reader(bench.servers, at.output)
        reader.start()
        try:
            start(team, bench, case, contender, at, inputs={"events": topic})
            feeder.probe()
            team.wait(lambda: len(reader.seen) >= _PROBES, _READY_S, "the first results")
            began_ms = time.time_ns() / 1_000_000
            feeder.start()
            limit_s = warm_up_s + measured_s + _DRAIN_S
            team.wait(lambda: not feeder.is_alive(), limit_s, "offering all records")
            team.sample()
            team.wait(lambda: len(reader.seen) >= feeder.sent, _DRAIN_S, f"{feeder.sent:,} results")
        finally:
            feeder.stop()
            if feeder.ident is not None:
                feeder.join()
            reader.stop()
        cost = team.stop()
        outputs = check(read_outputs(bench.servers, at.output, PARTITIONS), counts(feeder.keys))
    from_ms, to_ms = began_ms + warm_up_s * 1_000, began_ms + (warm_up_s + measured_s) * 1_000
    measured = sorted(latency for due, latency in reader.seen if from_ms <= due < to_ms)
    if not measured:
        raise ContenderFailed("no result fell into the measured seconds")
    return {
        "records": feeder.sent,
        "outputs": outputs,
        "rate": rate,
        "p50_ms": percentile(measured, 50),
        "p99_ms": percentile(measured, 99),
        "p999_ms": percentile(measured, 99.9),
        "max_ms": measured[-1],
        "feeder_lateness_ms": feeder.worst_lateness_s * 1_000,
        "cpu_s_per_million": (cost.user_s + cost.system_s) / (feeder.sent / 1_000_000),
        "peak_bytes": cost.peak_bytes,
    }
