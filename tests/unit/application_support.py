"""One topology on the in-memory broker, driven tick by tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from streamstate import Topology
from streamstate.engine.ports import TopicPartition
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.worker import Worker
from streamstate.testing.memory_broker.application import MemoryApplication
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock

START_MS = 1_700_000_000_000
GROUP = "app"

Pair = tuple[bytes | None, bytes | None]


class Run:
    """An application with one worker, or as many as a test starts.

    Args:
        topology: what it runs.
        topics: external topics and their partitions.
        compacted: an external topic that is compacted.
        settings: other than the defaults.
    """

    def __init__(
        self, topology: Topology, topics: dict[str, int] | None = None, compacted: str = "", **settings: Any
    ) -> None:
        self.clock = ManualClock(START_MS)
        self.broker = MemoryBroker(self.clock)
        for name, partitions in (topics or {"in": 1}).items():
            self.broker.create_topic(name, partitions, {"cleanup.policy": "compact"} if name == compacted else None)
        self.app = MemoryApplication(
            topology.build(), self.broker, self.clock, replace(WorkerSettings(GROUP), **settings)
        )
        self.workers: dict[str, Worker] = {}

    def start(self, name: str = "w") -> Worker:
        """A new worker; where it had a predecessor of this name, with its state."""
        self.workers[name] = self.app.worker(name)
        return self.workers[name]

    @property
    def worker(self) -> Worker:
        """The one there is, started when it is first needed."""
        return self.workers.get("w") or self.start()

    def send(self, *values: Any, key: bytes | None = b"k", topic: str = "in", **more: Any) -> None:
        """Put records in: values, or (key, value) pairs."""
        for item in values:
            at, value = item if isinstance(item, tuple) else (key, item)
            self.broker.append(topic, key=at, value=value, **more)

    def ticks(self, count: int = 4, step_ms: int = 50) -> None:
        """Let every worker have so many turns."""
        if not self.workers:
            self.start()
        for _ in range(count):
            self.clock.advance(step_ms)
            for worker in list(self.workers.values()):
                worker.tick()

    def until(self, reached: Callable[[], bool], limit: int = 200, step_ms: int = 50) -> None:
        """Let every worker have turns until something is so."""
        for _ in range(limit):
            if reached():
                return
            self.ticks(1, step_ms)
        raise AssertionError(f"not reached in {limit} turns")

    def out(self, topic: str = "out", partition: int | None = None) -> list[Pair]:
        """Committed (key, value) of a topic."""
        return self.broker.pairs(topic, partition)

    def times(self, topic: str = "out") -> list[int]:
        """Committed record timestamps of a topic."""
        return [record.timestamp()[1] for record in self.broker.read(topic)]

    def offset(self, topic: str = "in", partition: int = 0) -> int | None:
        """The committed input offset."""
        position = self.broker.committed(GROUP).get(TopicPartition(topic, partition))
        return None if position is None else position.offset

    def state(self, store: str, partition: int = 0) -> dict[bytes | None, bytes | None]:
        """Replay of a changelog partition; without the header of each entry."""
        replay: dict[bytes | None, bytes | None] = {}
        for record in self.broker.read(f"{GROUP}-{store}-changelog", partition):
            stored = record.value()
            replay[record.key()] = None if stored is None else stored[9:]
        return {key: value for key, value in replay.items() if value is not None}

    def restart(self, name: str = "w", *, close: bool = True) -> Worker:
        """End the worker, orderly or as a crash, and start it again."""
        worker = self.workers.pop(name)
        if close:
            worker.close()
        else:
            self.broker.expel(name)
        return self.start(name)
