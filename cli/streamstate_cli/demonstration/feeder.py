"""Produces the flights while the workers run.

Rule of this module: each flight is produced once. The producer is idempotent, and any failed delivery fails the
demonstration.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamstate.errors import BrokerUnavailable
from streamstate_cli.demonstration.data import key_of

__all__ = ["Feeder"]

FLUSH_S = 60
SERVE_EVERY = 1_000


class Feeder:
    """A thread that produces flights, as far as it is allowed to.

    Args:
        bootstrap_servers: of the broker.
        topic: where they go.
        flights: what to feed.

    Attributes:
        fed: flights produced so far.
    """

    def __init__(self, bootstrap_servers: str, topic: str, flights: Iterable[dict[str, Any]]) -> None:
        self._flights = flights
        self._topic = topic
        self._allowed = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._failure: Exception | None = None
        self._done = False
        self.fed = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 20,
                # Java's, so that equal keys meet in the same partition whoever produces.
                "partitioner": "murmur2_random",
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
            },
            logger=logging.getLogger("streamstate.demo"),
        )
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def allow(self, count: int) -> None:
        """Go on until ``count`` flights are fed in all."""
        with self._changed:
            self._allowed = max(self._allowed, count)
            self._changed.notify()

    @property
    def done(self) -> bool:
        """True when every flight is in the log.

        Raises:
            BrokerUnavailable: a flight could not be produced.
            ConfigError: the source cannot be read.
        """
        if self._failure is not None:
            raise self._failure
        return self._done

    def stop(self) -> None:
        """End, also before all is fed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(FLUSH_S)

    def _run(self) -> None:
        try:
            self._feed()
        except Exception as error:  # noqa: BLE001 - raised again by ``done``, in the thread that waits for it
            self._failure = error

    def _feed(self) -> None:
        for flight in self._flights:
            if self.fed >= self._allowed and not self._may_go_on():
                return
            self._produce(key_of(flight), orjson.dumps(flight), flight["scheduled_ms"])
            self.fed += 1
            if self.fed % SERVE_EVERY == 0:
                self._producer.poll(0)
        left = self._producer.flush(FLUSH_S)
        if left:
            raise BrokerUnavailable(f"The broker did not acknowledge {left} flights within {FLUSH_S} s")
        self._done = self._failure is None

    def _may_go_on(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self.fed < self._allowed or self._stopping)
            return not self._stopping

    def _produce(self, key: str, value: bytes, timestamp_ms: int) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, key, timestamp=timestamp_ms)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = BrokerUnavailable(f"A flight could not be produced: {KafkaException(error)}")
