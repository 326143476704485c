"""Feeds payments while everything else is torn down.

Rule of this module: each payment is produced once and acknowledged; the producer is idempotent and outlives restarts of
the broker. Records flow during every fault: should the faults take longer than planned, there are more records.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from confluent_kafka import Producer

from tests.chaos.checker import Digest
from tests.chaos.workload import payments
from tests.integration.support import Cluster

__all__ = ["Feeder"]

log = logging.getLogger("tests.chaos.client")

STEP_S = 0.02
FLUSH_S = 120
LEAST_RATE = 500.0


class Feeder:
    """A thread that produces.

    Args:
        cluster, topic: where.
        seed, users: see ``payments``.
        records: how many at least.

    Attributes:
        fed: so far.
        digest: of what was fed.
        rate: records per second from now on; once there are as many as asked for, no more than ``LEAST_RATE``.
    """

    def __init__(self, cluster: Cluster, topic: str, seed: int, users: int, records: int) -> None:
        self._topic = topic
        self._payments = payments(seed, users, cluster.partitions(topic))
        self.records = records
        self.fed = 0
        self.digest = Digest()
        self.rate = 0.0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 10,
                "reconnect.backoff.max.ms": 500,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
            },
            # What it says of a broker that is down is no news here.
            logger=log,
        )
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self, rate: float) -> None:
        """Begin, at this rate."""
        self.rate = rate
        self._thread.start()

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failures.append(str(error))

    def _run(self) -> None:
        last, due = time.monotonic(), 0.0
        for payment in self._payments:
            if self._hurry.is_set() and self.fed >= self.records:
                return
            while due < 1 and not self._hurry.is_set():
                self._producer.poll(0)
                if self._stop.wait(STEP_S):
                    return
                now = time.monotonic()
                due += (now - last) * (self.rate if self.fed < self.records else min(self.rate, LEAST_RATE))
                last = now
            due -= 1
            value = payment.encode()
            self._produce(payment.source, value)
            self.digest.add(payment.source, value)
            self.fed += 1
            if self._stop.is_set():
                return

    def _produce(self, partition: int, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, partition=partition)
                return
            except BufferError:
                self._producer.poll(0.1)

    @property
    def remaining(self) -> int:
        """Records that are still to be fed."""
        return max(0, self.records - self.fed)

    def finish(self) -> None:
        """Feed the rest, if any, at once, and wait until all is acknowledged."""
        self._hurry.set()
        while self._thread.is_alive():
            self._thread.join(0.5)
        left = self._producer.flush(FLUSH_S)
        if left or self.failures:
            raise RuntimeError(f"{left} records were not acknowledged, {self.failures[:3]}")

    def stop(self) -> None:
        """End, also before all is fed."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
