"""An application on the in-memory broker: the production worker, driven tick by tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from streamstate.engine import AtLeastOnce, Committer, TaskId, Transaction, Worker, WorkerSettings
from streamstate.engine.topics import Topics, prepare_topics
from streamstate.state import Backend, MemoryBackend
from streamstate.testing.adapters import MemoryAdmin
from streamstate.testing.broker import MemoryBroker
from streamstate.testing.clock import ManualClock
from streamstate.testing.consumer import MemoryConsumer, MemoryRestoreConsumer
from streamstate.testing.producer import MemoryProducer
from streamstate.topology.specs import Graph


class KeptBackend(MemoryBackend):
    """A memory backend that outlives its task, as a directory does."""

    def close(self) -> None:
        """Its data is kept by the ``Disk``."""


class Disk:
    """A state directory in memory: what a worker's tasks have applied, by task."""

    def __init__(self) -> None:
        self.backends: dict[TaskId, KeptBackend] = {}

    def open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> Backend:
        """The task's backend, with what it held before."""
        backend = self.backends.get(task_id)
        if backend is None:
            backend = self.backends[task_id] = KeptBackend(stores)
        return backend


class MemoryApplication:
    """Workers of one application on one in-memory broker.

    Args:
        graph: the topology.
        broker: with the source topics.
        clock: the broker's.
        settings: for every worker; None: the defaults under the topology's name.
        protocol: of the group, as ``MemoryConsumer`` takes it.
    """

    def __init__(
        self,
        graph: Graph,
        broker: MemoryBroker,
        clock: ManualClock,
        settings: WorkerSettings | None = None,
        protocol: Literal["eager", "cooperative", "broker"] = "cooperative",
    ) -> None:
        self.graph = graph
        self.broker = broker
        self.clock = clock
        self.settings = replace(settings or WorkerSettings(graph.name), eager=protocol == "eager")
        self.protocol = protocol
        self.topics: Topics = prepare_topics(graph, self.settings.application_id, MemoryAdmin(broker))
        self.disks: dict[str, Disk] = {}

    def worker(self, name: str) -> Worker:
        """A new worker; one of the same name takes over the disk and the transactional id of the one before."""
        disk = self.disks.setdefault(name, Disk())
        application_id = self.settings.application_id
        consumer = MemoryConsumer(self.broker, application_id, client_id=name, protocol=self.protocol)
        committer: Committer
        if self.settings.exactly_once:
            transactional_id = f"{application_id}-{name}"
            committer = Transaction(lambda: MemoryProducer(self.broker, transactional_id, client_id=name), self.clock)
        else:
            committer = AtLeastOnce(lambda: MemoryProducer(self.broker, None, client_id=name), consumer, self.clock)
        worker = Worker(
            self.graph,
            self.settings,
            self.topics.partition_counts,
            consumer=consumer,
            admin=MemoryAdmin(self.broker, client_id=name),
            clock=self.clock,
            committer=committer,
            restore_consumer=lambda: MemoryRestoreConsumer(self.broker, client_id=name),
            open_backend=disk.open,
        )
        worker.start()
        return worker
