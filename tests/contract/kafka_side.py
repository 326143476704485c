"""The real side of the contract tests: the adapters on confluent-kafka and whatever broker the tests run on."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from confluent_kafka.admin import AdminClient, NewPartitions

from streamstate.engine.ports import Admin, Consumer, Producer, RestoreConsumer
from streamstate.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaRestoreConsumer
from tests.contract.harness import SESSION_MS

PATIENCE_S = 60.0


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class KafkaSide:
    """Names are unique, so that tests can share the broker."""

    name = "kafka"
    poll_ms = 50

    def __init__(self, bootstrap_servers: str) -> None:
        self._properties: dict[str, Any] = {"bootstrap.servers": bootstrap_servers}
        self._made: list[Closable] = []
        self.closing = False
        self._admin = KafkaAdmin(self._properties)

    def consumer(self, group: str, protocol: str = "cooperative", *, instance_id: str | None = None) -> Consumer:
        properties = {
            **self._properties,
            "max.poll.interval.ms": SESSION_MS,
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": 500,
            "topic.metadata.refresh.interval.ms": 1_000,
        }
        consumer = KafkaConsumer(properties, group, cast(Any, protocol), instance_id=instance_id)
        return self._kept(consumer)

    def restore_consumer(self) -> RestoreConsumer:
        return self._kept(KafkaRestoreConsumer(self._properties, self.unique("restore")))

    def producer(self, transactional_id: str | None = None, *, timeout_ms: int = 60_000) -> Producer:
        properties = {**self._properties, "topic.metadata.refresh.interval.ms": 1_000}
        return self._kept(KafkaProducer(properties, transactional_id, timeout_ms))

    def admin(self) -> Admin:
        return self._admin

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE_S:.0f} s in vain for {what}")

    def add_partitions(self, topic: str, partitions: int) -> None:
        client = AdminClient(self._properties)
        for future in client.create_partitions([NewPartitions(topic, partitions)]).values():
            future.result(PATIENCE_S)

    def unique(self, word: str) -> str:
        return f"{word}-{uuid.uuid4().hex[:12]}"

    def close(self) -> None:
        self.closing = True
        for client in reversed(self._made):
            try:
                client.close()
            except RuntimeError:
                # Closed by the test already.
                continue
        self._admin.close()

    def _kept(self, client: C) -> C:
        self._made.append(client)
        return client
