"""An application on the in-memory broker: the production worker, driven tick by tick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from streamstate.coroutines import CoroutineRunner
from streamstate.engine.assign.assignment import OpenBackend
from streamstate.engine.assign.topics import Topics, prepare_topics
from streamstate.engine.composition import WorkerPorts, build_worker
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.task import TaskId
from streamstate.engine.worker import Worker
from streamstate.graph.node import Graph
from streamstate.state.backend import NO_FACTS, NOTHING_EXPIRED, Backend, InputPartition, MemoryBackend, Writes
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.background import MemoryBackground
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.consumer import MemoryConsumer, MemoryRestoreConsumer
from streamstate.testing.memory_broker.producer import MemoryProducer


class KeptBackend(MemoryBackend):
    """A memory backend that outlives its task, as a directory does."""

    def __init__(self, stores: Sequence[str]) -> None:
        super().__init__(stores)
        # Of stores that were restored since the last ``apply``: their positions before.
        self._before: dict[str, int | None] = {}

    def apply(
        self,
        writes: Writes,
        positions: Mapping[str, int],
        offsets: Mapping[InputPartition, int],
        expired_below: Mapping[str, bytes] = NOTHING_EXPIRED,
        *,
        current: bool = True,
        facts: Mapping[str, str] = NO_FACTS,
    ) -> None:
        super().apply(writes, positions, offsets, expired_below, current=current, facts=facts)
        self._before.clear()

    def restore(
        self, store: str, records: Mapping[bytes, bytes | None], position: int, *, complete: bool = False
    ) -> None:
        self._before.setdefault(store, self._positions.get(store))
        super().restore(store, records, position, complete=complete)

    def clear(self, store: str) -> None:
        super().clear(store)
        self._before.pop(store, None)

    def close(self) -> None:
        """Its data is kept by the ``Disk``."""
        self._before.clear()

    def killed(self) -> None:
        """The process dies: what was restored and is not kept has its entries, and the positions before."""
        for store, position in self._before.items():
            if position is None:
                self._positions.pop(store, None)
            else:
                self._positions[store] = position
        self._before.clear()


class Disk:
    """A state directory in memory: what a worker's tasks have applied, by task."""

    def __init__(self) -> None:
        self.backends: dict[TaskId, KeptBackend] = {}

    def open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> Backend:
        """The task's backend, with what it held before."""
        backend = self.backends.get(task_id)
        if backend is None:
            backend = self.backends[task_id] = KeptBackend(stores)
        backend.hold(stores)
        return backend

    def expect(self, stores_of_tasks: Sequence[int]) -> None:
        """There is room for any number of tasks."""

    def killed(self) -> None:
        """The process dies that used it."""
        for backend in self.backends.values():
            backend.killed()

    def lose(self) -> None:
        """Forget everything, as a machine does that does not come back."""
        self.backends.clear()


class MemoryApplication:
    """Workers of one application on one in-memory broker.

    Args:
        graph: the topology.
        broker: with the source topics.
        clock: the broker's.
        settings: for every worker; None: the defaults under the topology's name.
        protocol: of the group, as ``MemoryConsumer`` takes it.
        queue_records: of every producer, as ``MemoryProducer`` takes it.
        session_timeout_ms: of the group's members.

    Attributes:
        background: runs the workers' commits; by default each ends at once.
        calls: of all its workers; its thread begins with the first call.
    """

    def __init__(
        self,
        graph: Graph,
        broker: MemoryBroker,
        clock: ManualClock,
        settings: WorkerSettings | None = None,
        protocol: Literal["eager", "cooperative", "broker"] = "cooperative",
        *,
        queue_records: int = 100,
        session_timeout_ms: int = 45_000,
    ) -> None:
        self.graph = graph
        self._queue_records = queue_records
        self.broker = broker
        self.clock = clock
        self.settings = replace(settings or WorkerSettings(graph.name), eager=protocol == "eager")
        self.protocol = protocol
        self.session_timeout_ms = session_timeout_ms
        self.background = MemoryBackground()
        self.topics: Topics = prepare_topics(
            graph,
            self.settings.application_id,
            MemoryAdmin(broker),
            restore_consumer=lambda: MemoryRestoreConsumer(broker, client_id="admin"),
        )
        self.disks: dict[str, Disk] = {}
        self.calls = CoroutineRunner()

    def worker(self, name: str, open_backend: OpenBackend | None = None) -> Worker:
        """A new worker; one of the same name takes over the disk and the transactional id of the one before.

        Args:
            name: of the worker.
            open_backend: opens a task's state; None: on a ``Disk`` of this name.
        """
        disk = self.disks.setdefault(name, Disk()) if open_backend is None else Disk()
        application_id = self.settings.application_id
        consumer = MemoryConsumer(
            self.broker,
            application_id,
            client_id=name,
            protocol=self.protocol,
            session_timeout_ms=self.session_timeout_ms,
        )
        transactional_id = f"{application_id}-{name}" if self.settings.exactly_once else None
        ports = WorkerPorts(
            consumer=consumer,
            admin=MemoryAdmin(self.broker, client_id=name),
            clock=self.clock,
            make_producer=lambda: self._producer(name, transactional_id),
            make_restore_consumer=lambda: MemoryRestoreConsumer(self.broker, client_id=name),
            commit_background=self.background,
            watch_background=MemoryBackground(),
            open_backend=open_backend or disk.open,
            check_capacity=disk.expect,
            calls=self.calls,
        )
        worker = build_worker(self.topics, ports, self.settings)
        worker.start()
        return worker

    def _producer(self, name: str, transactional_id: str | None) -> MemoryProducer:
        return MemoryProducer(self.broker, transactional_id, client_id=name, queue_records=self._queue_records)
