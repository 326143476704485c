"""The in-memory side of the contract tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from streamstate.engine.ports import Admin, Consumer, Producer, RestoreConsumer
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.consumer import MemoryConsumer, MemoryRestoreConsumer
from streamstate.testing.memory_broker.producer import MemoryProducer
from tests.contract.harness import SESSION_MS

STEP_MS = 20
STEPS = 2_000


class MemorySide:
    """A fresh broker for every test; waiting lets its clock run."""

    name = "memory"
    poll_ms = 0

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker(self.clock)
        self._names = 0
        self.closing = False

    def consumer(self, group: str, protocol: str = "cooperative", *, instance_id: str | None = None) -> Consumer:
        return MemoryConsumer(
            self.broker,
            group,
            cast(Any, protocol),
            client_id=self.unique("consumer"),
            instance_id=instance_id,
            session_timeout_ms=SESSION_MS,
        )

    def restore_consumer(self) -> RestoreConsumer:
        return MemoryRestoreConsumer(self.broker)

    def producer(self, transactional_id: str | None = None, *, timeout_ms: int = 60_000) -> Producer:
        return MemoryProducer(self.broker, transactional_id, transaction_timeout_ms=timeout_ms)

    def admin(self) -> Admin:
        return MemoryAdmin(self.broker)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def until(self, condition: Callable[[], object], what: str) -> None:
        for _ in range(STEPS):
            if condition():
                return
            self.clock.advance(STEP_MS)
        raise AssertionError(f"waited in vain for {what}")

    def add_partitions(self, topic: str, partitions: int) -> None:
        self.broker.add_partitions(topic, partitions)

    def unique(self, word: str) -> str:
        self._names += 1
        return f"{word}-{self._names}"

    def close(self) -> None:
        self.closing = True
