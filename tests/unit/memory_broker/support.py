"""Producers and members on a broker in memory, for its tests."""

from __future__ import annotations

from collections.abc import Sequence

from streamstate.engine.ports import (
    Output,
    TopicPartition,
)
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.consumer import MemoryConsumer
from streamstate.testing.memory_broker.producer import MemoryProducer

AT = TopicPartition("topic", 0)
DAY_MS = 24 * 60 * 60 * 1000


class Listener:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[str, list[int]]] = []

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("assigned", [p.partition for p in partitions]))

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("revoked", [p.partition for p in partitions]))

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("lost", [p.partition for p in partitions]))


def output(value: bytes | None = b"v", *, topic: str = "topic", key: bytes | None = b"k") -> Output:
    return topic, value, key, -1, None, None, None


def producer_of(broker: MemoryBroker, transactional_id: str = "tx", **options: int) -> MemoryProducer:
    producer = MemoryProducer(broker, transactional_id, **options)
    producer.init(100)
    return producer


def member_of(broker: MemoryBroker, client_id: str = "a", **options: object) -> tuple[MemoryConsumer, Listener]:
    consumer = MemoryConsumer(broker, "group", client_id=client_id, **options)  # type: ignore[arg-type]
    listener = Listener()
    consumer.subscribe(["topic"], listener)
    return consumer, listener


# Faults


class Injector:
    """Raises an error once, at one call and phase."""

    def __init__(self, call: str, phase: str, error: BaseException) -> None:
        self.call, self.phase, self.error = call, phase, error
        self.seen: list[tuple[str, str, str]] = []
        self.fired = False

    def __call__(self, actor: str, call: str, phase: str) -> None:
        self.seen.append((actor, call, phase))
        if (call, phase) == (self.call, self.phase) and not self.fired:
            self.fired = True
            raise self.error
