"""Driving a topology record by record, without a broker.

Rule of this module: nothing is imitated. The worker is the one that runs in production, with its transactions, its
restores and its roll-backs; the driver only says when it takes a turn, and makes it take as many as there is work for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar, overload

from streamstate.dsl.topology import Topology
from streamstate.engine.assign.topics import source_topics
from streamstate.engine.metrics import WorkerStatus
from streamstate.engine.ports import AbortRequired, TopicPartition
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.task import Phase, Task, TaskId
from streamstate.engine.worker import Worker
from streamstate.errors import StreamStateError
from streamstate.graph.node import Graph
from streamstate.graph.queries import sink_topics
from streamstate.operators.topics.spec import Sink, Source
from streamstate.serde import SerdeLike, bytes_, known_serde
from streamstate.state.backend import Backend
from streamstate.state.spec import StoreSpec
from streamstate.state.typed_stores import typed_store
from streamstate.testing.driver.store_view import StoreView, task_store
from streamstate.testing.driver.topics import InputTopic, OutputTopic, WriteOrderBroker, milliseconds
from streamstate.testing.memory_broker.application import Disk, KeptBackend, MemoryApplication
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.log import Headers
from streamstate.units import Duration
from streamstate.windows import whole_ms

__all__ = ["StateDisk", "TopologyTestDriver"]

K = TypeVar("K")
V = TypeVar("V")

WORKER = "driver"
NEVER_MS = 1 << 62
NO_LIMIT_BYTES = 1 << 62
# More turns than any record needs: beyond it the records go round in circles.
MAX_TURNS = 20_000
# Event time is not wall time: a test of a history needs no topic settings, nor does one of the year 2100.
ANY_TIME = {"message.timestamp.after.max.ms": str((1 << 63) - 1), "retention.ms": "-1"}


class StateDisk(Protocol):
    """Where the driver's state lives: ``streamstate.testing.Disk`` or ``streamstate.rocksdb.RocksDisk``."""

    def open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> Backend:
        """The task's backend, with what it held before."""
        ...

    def lose(self) -> None:
        """Forget everything."""
        ...


class _TimelessClock:
    """The broker's time: the wall clock is the driver's, but no session and no transaction ever times out."""

    def __init__(self, clock: ManualClock) -> None:
        self.now_ms = clock.now_ms

    def monotonic_ms(self) -> int:
        return 0


class TopologyTestDriver:
    """Runs a topology in this thread, on a broker in memory (Kafka Streams: ``TopologyTestDriver``).

    Each piped record is processed, and committed, before ``pipe`` returns, on its way through repartition topics
    too; so records are processed strictly in the order in which they are piped, over all topics and partitions.

    >>> from streamstate import Topology, serde
    >>> topology = Topology("word-count")
    >>> words = topology.stream("words", key=serde.string(), value=serde.string())
    >>> words.group_by_key().count(store="counts").to_stream().to("counts")
    >>> driver = TopologyTestDriver(topology)
    >>> driver.input("words").pipe("a", "1", timestamp=10)
    >>> driver.input("words").pipe("a", "2", timestamp=7)
    >>> driver.output("counts").read_all()  # doctest: +NORMALIZE_WHITESPACE
    [Record(key='a', value=1, timestamp=10, headers=(), partition=0),
     Record(key='a', value=2, timestamp=10, headers=(), partition=0)]
    >>> driver.store("counts").get("a")
    2
    >>> driver.close()

    Args:
        topology: what to run.
        partitions: of every topic, or by topic; 1 where it is not said.
        topics: further topics to create, such as those that a function in ``to()`` chooses.
        start: wall-clock time at the start, in ms since 1970 or as a datetime; it moves only when told.
        auto_commit: commit after each piped record. With False only ``commit()`` does.
        disk: where state lives; None: in memory. ``streamstate.rocksdb.RocksDisk(path)`` is the other choice.
        topic_config: settings of the topics, over those that take any event time.

    Raises:
        TopologyError: the topology cannot run as written.
    """

    def __init__(
        self,
        topology: Topology[Any, Any] | Graph,
        *,
        partitions: int | Mapping[str, int] = 1,
        topics: Sequence[str] = (),
        start: int | datetime = 1_700_000_000_000,
        auto_commit: bool = True,
        disk: StateDisk | None = None,
        topic_config: Mapping[str, str] | None = None,
    ) -> None:
        self.graph = topology.build() if isinstance(topology, Topology) else topology
        self.clock = ManualClock(milliseconds(start))
        self.auto_commit = auto_commit
        default = partitions if isinstance(partitions, int) else 1
        self.broker = WriteOrderBroker(_TimelessClock(self.clock), default_partitions=default)
        counts = {} if isinstance(partitions, int) else dict(partitions)
        sinks = [n.spec.topic for n in self.graph.nodes.values() if isinstance(n.spec, Sink) and not n.spec.internal]
        fixed = [topic for topic in sinks if isinstance(topic, str)]
        for name in dict.fromkeys([*source_topics(self.graph), *fixed, *topics, *counts]):
            self.broker.create_topic(name, counts.get(name, default), {**ANY_TIME, **(topic_config or {})})
        self._disk: StateDisk = disk or Disk()
        self._application = self._new_application(self.graph)
        self._worker: Worker | None = None
        # Whatever the worker has opened, for its tasks and for its global tables: a crash lets go of all of it.
        self._opened: list[Backend] = []
        self._gathering = False
        self._ended = ""
        self._start()
        self._settle(commit=auto_commit)

    def __enter__(self) -> TopologyTestDriver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TopologyTestDriver {self.graph.name}>"

    # -- topics --------------------------------------------------------------------------------------------

    @overload
    def input(
        self,
        topic: str,
        *,
        key: SerdeLike[K],
        value: SerdeLike[V],
        start: int | datetime | None = None,
        step: Duration = timedelta(0),
    ) -> InputTopic[K, V]: ...

    @overload
    def input(
        self,
        topic: str,
        *,
        key: SerdeLike[Any] | None = None,
        value: SerdeLike[Any] | None = None,
        start: int | datetime | None = None,
        step: Duration = timedelta(0),
    ) -> InputTopic[Any, Any]: ...

    def input(
        self,
        topic: str,
        *,
        key: SerdeLike[Any] | None = None,
        value: SerdeLike[Any] | None = None,
        start: int | datetime | None = None,
        step: Duration = timedelta(0),
    ) -> InputTopic[Any, Any]:
        """A topic to put records into (Kafka Streams: ``createInputTopic``).

        Args:
            topic: its name.
            key: serde of the key; by default that of the source which reads the topic.
            value: serde of the value; the same.
            start: event time of the first record that is given none; None: the driver's wall clock.
            step: from one such record to the next.

        Raises:
            LookupError: there is no such topic.
        """
        self._check(topic)
        known: list[Source | StoreSpec] = [
            n.spec for n in self.graph.nodes.values() if isinstance(n.spec, Source) and topic in n.spec.topics
        ]
        known += [table.store for table in self.graph.global_tables.values() if table.topic == topic]
        key_serde = known_serde(key, "key=", key=True) or (known[0].key if known else bytes_())
        value_serde = known_serde(value, "value=") or (known[0].value if known else bytes_())
        return InputTopic(topic, key_serde, value_serde, start, step, self._pipe)

    @overload
    def output(
        self, topic: str, *, key: SerdeLike[K], value: SerdeLike[V], committed: bool = True
    ) -> OutputTopic[K, V]: ...

    @overload
    def output(
        self,
        topic: str,
        *,
        key: SerdeLike[Any] | None = None,
        value: SerdeLike[Any] | None = None,
        committed: bool = True,
    ) -> OutputTopic[Any, Any]: ...

    def output(
        self,
        topic: str,
        *,
        key: SerdeLike[Any] | None = None,
        value: SerdeLike[Any] | None = None,
        committed: bool = True,
    ) -> OutputTopic[Any, Any]:
        """A topic to read, from its first record on (Kafka Streams: ``createOutputTopic``).

        Args:
            topic: its name; internal topics can be read too, as bytes.
            key: serde of the key; by default that of the ``to()`` which writes the topic.
            value: serde of the value; the same.
            committed: false to see records of open and aborted transactions too, as a reader without
                ``read_committed`` does.

        Raises:
            LookupError: there is no such topic.
        """
        self._check(topic)
        known = [n.spec for n in self.graph.nodes.values() if isinstance(n.spec, Sink) and n.spec.topic == topic]
        key_serde = known_serde(key, "key=", key=True) or (known[0].key if known else bytes_())
        value_serde = known_serde(value, "value=") or (known[0].value if known else bytes_())
        return OutputTopic(topic, key_serde, value_serde, self.broker, committed)

    def _check(self, topic: str) -> None:
        known = self.broker.topics()
        if topic not in known:
            raise LookupError(
                f"there is no topic {topic!r}, but {', '.join(sorted(known))}. One that the topology does not name "
                f"is created by TopologyTestDriver(..., topics=[{topic!r}])"
            )

    def _pipe(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int,
        timestamp: int | None,
        headers: Headers | None,
    ) -> None:
        self._alive()
        self.broker.append(topic, key=key, value=value, partition=partition, timestamp=timestamp, headers=headers)
        if not self._gathering:
            self._settle(commit=self.auto_commit)

    @contextmanager
    def backlog(self) -> Iterator[None]:
        """What is piped within is processed when the block ends, as by a process that has fallen behind: in batches of
        one partition after the other, and by a task with several inputs in the order of their timestamps.

        That is also many times as fast as record by record.

        >>> from streamstate import Topology, serde
        >>> topology = Topology("merged")
        >>> names = topology.table("names", key=serde.string(), value=serde.string())
        >>> visits = topology.stream("visits", key=serde.string(), value=serde.string())
        >>> visits.join(names, lambda page, name: f"{name}: {page}").to("out", value=serde.string())
        >>> with TopologyTestDriver(topology) as driver:
        ...     with driver.backlog():
        ...         driver.input("visits").pipe("a", "/home", timestamp=20)
        ...         driver.input("names").pipe("a", "Ada", timestamp=10)
        ...     driver.output("out").values()
        ['Ada: /home']

        Raises:
            StreamStateError: when the block ends, what ends the process in production.
        """
        self._alive()
        before, self._gathering = self._gathering, True
        try:
            yield
        finally:
            self._gathering = before
        if not before:
            self._settle(commit=self.auto_commit)

    # -- state ---------------------------------------------------------------------------------------------

    def store(self, name: str, *, partition: int | None = None, committed: bool = False) -> Any:
        """A look into a store, of whatever kind (Kafka Streams: ``getKeyValueStore`` and its like).

        Args:
            name: of the store.
            partition: None: the only one, or a read-only view over all partitions.
            committed: leave out what the open transaction has written.

        Returns:
            The store as a ``Processor`` gets it, of one partition; what is put into it belongs to the open
            transaction. Timers, and key-value stores over several partitions, can only be read. Ask anew after a
            crash or an abort.

        Raises:
            LookupError: there is no such store or partition, or it is of a kind that is looked into by partition.
        """
        tasks = {task.id.partition: task for task in self._alive().assignment.tasks.values() if name in task.stores}
        globals_ = self._alive().global_state.stores
        if name in globals_:
            return typed_store(globals_[name], lambda: 0)
        if not tasks:
            raise LookupError(
                f"there is no store {name!r}, but {', '.join(sorted(self.graph.stores)) or 'none at all'}"
            )
        spec = self.graph.stores[name]
        if partition is None and len(tasks) > 1:
            if spec.kind != "key_value":
                raise LookupError(
                    f"store {name!r} has {len(tasks)} partitions, and of its kind one is looked into at a time: "
                    f"driver.store({name!r}, partition=0)"
                )
            views = {number: task_store(tasks[number], name, committed) for number in sorted(tasks)}
            return StoreView(name, spec, views)
        number = next(iter(tasks)) if partition is None else partition
        if number not in tasks:
            raise LookupError(f"store {name!r} has no partition {number}, but {', '.join(map(str, sorted(tasks)))}")
        return task_store(tasks[number], name, committed)

    def status(self) -> WorkerStatus:
        """The worker's numbers: records processed, dropped, failed, transactions."""
        return self._alive().status()

    @property
    def tasks(self) -> list[Task]:
        """The worker's tasks, for tests of the engine."""
        return list(self._alive().assignment.tasks.values())

    # -- time and transactions -----------------------------------------------------------------------------

    def advance(self, time: Duration) -> None:
        """Move the wall clock (Kafka Streams: ``advanceWallClockTime``). Schedules that fall due are called, once each.

        Stream time is moved by records only.
        """
        self._alive()
        self.clock.advance(whole_ms(time))
        self._settle(commit=self.auto_commit)

    def commit(self, *, hops: bool = True) -> None:
        """Commit what is uncommitted.

        Args:
            hops: repartition topics are read only when committed: process what is in them now and commit that too,
                until there is nothing left. With False one transaction is committed, and what it made visible is
                processed in the next one, which stays open.
        """
        if hops:
            self._settle(commit=True)
            return
        worker = self._alive()
        worker.request_commit()
        self._turn(worker)
        self._settle(commit=False)

    def abort(self) -> None:
        """Let the open transaction's commit be refused. The worker drops what is uncommitted and, from the committed
        state, processes those records again. Nothing happens when nothing is uncommitted."""
        worker = self._alive()
        before = self.broker.on_call

        def refuse(actor: str, call: str, phase: str) -> None:
            if call == "producer.commit" and phase == "before":
                raise AbortRequired("the test wants it aborted")

        self.broker.on_call = refuse
        try:
            worker.request_commit()
            self._turn(worker)
        finally:
            self.broker.on_call = before
        self._settle(commit=self.auto_commit)

    def crash(self, *, disk: Literal["kept", "lost"] = "kept") -> None:
        """End the worker without a word, as ``kill -9`` does, and start another, which restores and goes on.

        Args:
            disk: ``lost``: the new one has no local state and restores everything from the changelogs.
        """
        self._worker = None
        for backend in self._opened:
            if isinstance(backend, KeptBackend):
                backend.killed()
            else:
                backend.close()
        self._again(disk)

    def restart(self, *, disk: Literal["kept", "lost"] = "kept") -> None:
        """End the worker in order, what is uncommitted being committed, and start another. Also after an error."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._ended = "its orderly end failed; restart() starts another"
            worker.close()
        self._again(disk)

    def deploy(self, topology: Topology[Any, Any] | Graph, *, disk: Literal["kept", "lost"] = "kept") -> None:
        """End the worker in order and start another one with a changed topology, on the same topics and state: what a
        new version of an application does.

        Args:
            topology: the new version; it has the name of the one before. Its new input and output topics are created.
            disk: ``lost``: the new worker has no local state and restores everything from the changelogs.

        Raises:
            ValueError: the topology has another name.
            TopologyError: the topology cannot go on with the state there is. Nothing runs then; deploy another one.

        >>> from streamstate import Topology, serde
        >>> def version(store: str) -> Topology:
        ...     topology = Topology("word-count")
        ...     words = topology.stream("words", key=serde.string(), value=serde.string())
        ...     words.group_by_key().count(store=store).to_stream().to("counts")
        ...     return topology
        >>> with TopologyTestDriver(version("counts")) as driver:
        ...     driver.input("words").pipe("a", "1")
        ...     driver.deploy(version("counts"))
        ...     driver.input("words").pipe("a", "2")
        ...     driver.deploy(version("others"))
        ...     driver.input("words").pipe("a", "3")
        ...     driver.output("counts").values()
        [1, 2, 1]
        """
        graph = topology.build() if isinstance(topology, Topology) else topology
        if graph.name != self.graph.name:
            raise ValueError(f"the new version is called {graph.name!r}, not {self.graph.name!r} as the one before")
        worker, self._worker = self._worker, None
        if worker is not None:
            self._ended = "its orderly end failed; restart() starts another"
            worker.close()
        self._ended = "the topology that was deployed last was refused; deploy() another one"
        known = self.broker.topics()
        for name in (name for name in (*source_topics(graph), *sink_topics(graph)) if name not in known):
            self.broker.create_topic(name, None, ANY_TIME)
        self._application.calls.close()
        self._application = self._new_application(graph)
        self.graph = graph
        self._again(disk)

    def close(self) -> None:
        """End it; what is uncommitted is dropped. May be called twice."""
        worker, self._worker = self._worker, None
        self._ended = "it is closed"
        try:
            if worker is not None:
                worker.close(commit=False)
        finally:
            self._application.calls.close()

    # -- turns ---------------------------------------------------------------------------------------------

    def _new_application(self, graph: Graph) -> MemoryApplication:
        settings = replace(
            WorkerSettings(graph.name), commit_interval_ms=NEVER_MS, staging_bytes=NO_LIMIT_BYTES, poll_ms=0
        )
        # Outputs go out at once, so that a reader of uncommitted records sees them.
        return MemoryApplication(graph, self.broker, self.clock, settings, queue_records=0)

    def _again(self, disk: Literal["kept", "lost"]) -> None:
        self.broker.expel(WORKER)
        if disk == "lost":
            self._disk.lose()
        self._start()
        self._settle(commit=self.auto_commit)

    def _start(self) -> None:
        self._ended = ""
        self._opened.clear()
        self._worker = self._application.worker(WORKER, self._open)

    def _open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> Backend:
        backend = self._disk.open(task_id, stores, fresh)
        self._opened.append(backend)
        return backend

    def _alive(self) -> Worker:
        if self._worker is None:
            raise RuntimeError(f"the driver of {self.graph.name!r} runs no worker: {self._ended}")
        return self._worker

    def _turn(self, worker: Worker) -> None:
        try:
            worker.tick()
        except StreamStateError as error:
            # As in production: nobody goes on with a worker that has failed.
            self._worker = None
            self._ended = f"it ended with: {error}. restart() starts another, which meets the same record again"
            worker.close(commit=False)
            raise

    def _settle(self, *, commit: bool) -> None:
        """Take turns until there is nothing to do."""
        worker = self._alive()
        for _ in range(MAX_TURNS):
            if commit:
                worker.request_commit()
            self._turn(worker)
            if self._at_rest(worker) and not (commit and worker.uncommitted()):
                return
        raise RuntimeError(
            f"the topology {self.graph.name!r} does not come to rest in {MAX_TURNS} turns: does it write to a topic "
            f"that it reads?"
        )

    def _at_rest(self, worker: Worker) -> bool:
        """Everything is assigned and runs, and no visible record is left to process."""
        if worker.global_state.behind():
            return False
        tasks = worker.assignment.tasks.values()
        if len(worker.assignment.of_partition) < sum(self._application.topics.partition_counts.values()):
            return False
        return all(
            task.phase is Phase.RUNNING
            and not any(self._unread(partition, i.next_offset) for partition, i in task.inputs.items())
            for task in tasks
        )

    def _unread(self, partition: TopicPartition, position: int | None) -> bool:
        log = self.broker.log(partition)
        return log is not None and bool(log.read(position or 0, 1)[0])
