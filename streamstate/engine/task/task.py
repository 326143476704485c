"""A task: one sub-topology on one partition, with its inputs, its state and its chain of operators.

A task knows nothing of groups and transactions. It processes the records that it is given, says what a transaction must
carry for it, and keeps or drops its uncommitted work when it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.ports import Message, Position, TopicPartition
from streamstate.engine.task.dead_letters import has_policy
from streamstate.engine.task.error_policy import ErrorPolicyHandler
from streamstate.engine.task.input_merger import MaySkipEmpty
from streamstate.engine.task.inputs import Input, TaskCounters, precedence
from streamstate.engine.task.offset_metadata import encode_metadata
from streamstate.engine.task.operator_chain import ChainParts, OperatorChain
from streamstate.engine.task.store_layout import StoreLayoutCheck, marks_taken
from streamstate.engine.task.store_marks import StoreMark, differences, mark_fact, mark_of
from streamstate.graph.names import changelog_topic
from streamstate.graph.node import Graph, SubTopology
from streamstate.operators.base.compilation import SourceLog
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import TaskInterrupted
from streamstate.operators.base.holding import AsyncCalls
from streamstate.state.backend import Backend
from streamstate.state.staging import StagedStore
from streamstate.state.undo import UndoLog

INPUT_ID_FACT = "input_id:"  # beginning of the facts that say which topic an input was


class TaskId(NamedTuple):
    """Identity of a task; also its directory's name."""

    subtopology: str
    partition: int

    def __str__(self) -> str:
        return f"{self.subtopology}_{self.partition}"


class Phase(Enum):
    """Life of a task. ``CREATED`` lacks committed offsets or state; only ``RUNNING`` processes."""

    CREATED = "created"
    RESTORING = "restoring"
    RUNNING = "running"
    SUSPENDED = "suspended"
    CLOSED = "closed"


class Task:
    """Runs one sub-topology on one partition.

    Args:
        task_id: its identity.
        graph: the topology.
        subtopology: the part it runs.
        application_id: prefix of its internal topics.
        now_ms: wall clock.
        limits: of topics, see ``TaskContext``.
        calls: runs coroutines.
        global_stores: of the process' global tables.
        known_marks: of the application's stores when this process started; None: not looked at.
    """

    def __init__(
        self,
        task_id: TaskId,
        graph: Graph,
        subtopology: SubTopology,
        application_id: str,
        now_ms: Callable[[], int],
        limits: Callable[[str], list[int]],
        calls: AsyncCalls,
        global_stores: Mapping[str, StagedStore],
        known_marks: Mapping[str, tuple[StoreMark, ...]] | None = None,
    ) -> None:
        self.id = task_id
        self.phase = Phase.CREATED
        self.inputs: dict[TopicPartition, Input] = {}
        self.backend: Backend | None = None
        self.stores: dict[str, StagedStore] = {}
        self.subtopology = subtopology
        self.lock_wait_since_ms: int | None = None
        self.changelog_marks = ""
        # Of inputs that were created again: facts to keep once the first offsets of the new topic are committed.
        self.new_topic_ids: dict[str, str] = {}
        self.processed = 0
        self.uncommitted = 0
        self._specs = {name: graph.stores[name] for name in subtopology.stores}
        self._graph = graph
        self._application_id = application_id
        self._now_ms = now_ms
        self._limits = limits
        self._calls = calls
        self._undo: UndoLog | None = [] if has_policy(graph, subtopology) else None
        self._layout_check = StoreLayoutCheck(str(task_id), known_marks)
        self._failures = ErrorPolicyHandler(str(task_id), now_ms, self._undo)
        self._parts = ChainParts(str(task_id), subtopology, self._undo, self._failures, global_stores)
        self._chain: OperatorChain | None = None
        self._dropped_before = 0
        self.context = self._new_context()

    # -- life ----------------------------------------------------------------------------------------------

    def _new_context(self) -> TaskContext:
        context = TaskContext(self._application_id, str(self.id), self._now_ms, self._limits)
        context.calls = self._calls
        return context

    def open(self, backend: Backend) -> None:
        """Take the backend and compile the chain of operators.

        Raises:
            TaskInterrupted: no broker answers a question about an output topic; the backend is closed.
        """
        self.backend = backend
        try:
            self._compile(backend)
        except TaskInterrupted:
            self.backend = None
            backend.close()
            raise

    def _compile(self, backend: Backend) -> OperatorChain:
        self._dropped_before += self.context.dropped
        self.context = self._new_context()
        self._chain = chain = OperatorChain(self._parts, self._graph, self.context, backend)
        self.stores = chain.stores
        for input_ in self.inputs.values():
            input_.entry = chain.sources[input_.partition.topic]
        return chain

    def add_input(self, partition: TopicPartition) -> None:
        """Own one more partition."""
        input_ = Input(partition)
        if self._chain is not None:
            input_.entry = self._chain.sources[partition.topic]
        self.inputs[partition] = input_

    def suspend(self) -> None:
        """Its partitions are taken away, perhaps to come back at once: keep the state open, forget the inputs."""
        self.inputs.clear()
        self.phase = Phase.SUSPENDED

    def changelogs(self) -> dict[str, TopicPartition]:
        """Partition by store of the changelogs that the task writes."""
        return {
            name: TopicPartition(changelog_topic(self._application_id, name), self.id.partition)
            for name in self.subtopology.stores
            if self._graph.stores[name].own_changelog
        }

    def source_logs(self) -> dict[str, SourceLog]:
        """By store, the inputs that are the store's changelog: it is restored from there, up to the next offset."""
        return {} if self._chain is None else self._chain.source_logs

    def restored_from(self) -> dict[str, TopicPartition]:
        """Partition by store of what it is restored from, of stores that can be."""
        sources = {name: TopicPartition(log.topic, self.id.partition) for name, log in self.source_logs().items()}
        return {**self.changelogs(), **sources}

    def differences_of(self, store: str) -> list[str]:
        """Why what is stored locally of a store that is made of its topic cannot be read; empty when it can."""
        assert self.backend is not None, "asked before it was opened"
        text = self.backend.facts().get(mark_fact(store))
        return [] if text is None else differences(StoreMark.parsed(store, text), mark_of(self._specs[store]))

    def run(self) -> None:
        """Start to process: state and offsets are complete.

        Raises:
            TopologyError: a store holds entries that the topology cannot go on with.
            ProcessingError: a processor failed in ``init``.
        """
        chain = self._opened()
        assert self.backend is not None, "run before it was opened"
        for store in self.stores.values():
            store.forget()
        adopted = self._layout_check.adopt(self._specs, self.stores, self.backend)
        if adopted:
            # Only now is it known how the stores were written.
            self._graph = replace(self._graph, stores={**self._graph.stores, **self._specs, **adopted})
            stream_time, stores = self.context.stream_time, self.stores
            chain = self._compile(self.backend)
            self.context.stream_time = stream_time
            for name, store in self.stores.items():
                store.cache_bytes = stores[name].cache_bytes
        self._layout_check.build_indexes(self.stores, self.backend, self._undo)
        chain.init()
        self.phase = Phase.RUNNING

    def _opened(self) -> OperatorChain:
        assert self._chain is not None, "used before it was opened"
        return self._chain

    def reset(self) -> None:
        """Roll back: drop uncommitted work, processors included, and start over from committed state."""
        if self.phase is Phase.CLOSED:
            return
        if self._chain is not None:
            assert self.backend is not None, "a chain without state"
            self._chain.close()
            self._compile(self.backend)
        for input_ in self.inputs.values():
            input_.buffer.clear()
            input_.head = None
            input_.next_offset = None
            input_.committed = None
            input_.paused = False
        self.uncommitted = 0
        self.phase = Phase.CREATED

    def begin_close(self) -> None:
        """Drop uncommitted work and begin to release the state; ``close`` comes next, and waits for the end."""
        if self.phase is Phase.CLOSED:
            return
        self._drop_work()
        if self.backend is not None:
            self.backend.begin_close()

    def _drop_work(self) -> None:
        chain, self._chain = self._chain, None
        self.stores = {}
        if chain is not None:
            chain.close()

    def drop_state(self) -> None:
        """Drop uncommitted work and release the state; unless it is closed, the task must be reset next."""
        self._drop_work()
        if self.backend is not None:
            self.backend.close()
            self.backend = None

    def close(self) -> None:
        """Drop uncommitted work and release the state."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self.drop_state()

    # -- process and punctuate -----------------------------------------------------------------------------

    def process(self, partition: TopicPartition, messages: Sequence[Message], batch_sizer: BatchSizer) -> int:
        """Process records of the task's only input, in order, until ``batch_sizer`` halts the batch; return how many.

        Raises:
            ProcessingError: a record failed under the policy ``fail``.
        """
        return self._count(self._opened().records.process(self.inputs[partition], messages, batch_sizer))

    def buffer(self, partition: TopicPartition, messages: Sequence[Message]) -> None:
        """Keep records of one of several inputs until ``process_buffered`` takes them."""
        input_ = self.inputs[partition]
        expected = input_.buffer[-1].offset() + 1 if input_.buffer else input_.next_offset
        assert expected is not None, "running without a position"
        input_.buffer.extend(message for message in messages if message.offset() >= expected)
        input_.empty_since_ms = None

    def process_buffered(self, batch_sizer: BatchSizer, may_skip_empty: MaySkipEmpty) -> int:
        """Process buffered records, smallest event time first, as many as make a batch; return how many.

        Args:
            batch_sizer: says how many that is, and ends it early.
            may_skip_empty: says of an empty input whether to stop waiting for it.

        Raises:
            ProcessingError: a record failed under the policy ``fail``.
        """
        inputs = sorted(self.inputs.values(), key=precedence)
        return self._count(self._opened().merger.process(inputs, batch_sizer, may_skip_empty))

    def _count(self, done: int) -> int:
        self.processed, self.uncommitted = self.processed + done, self.uncommitted + done
        return done

    def punctuate_wall_clock(self, now_ms: int) -> int:
        """Call what is due by the wall clock; return how much it was.

        Raises:
            ProcessingError: a punctuation failed.
        """
        if now_ms < self.context.schedules.next_wall_ms:
            return 0
        return self._opened().punctuate_wall_clock(now_ms)

    # -- commit --------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """True when ``flush`` has something to do."""
        return self._chain is not None and self._chain.pending

    def flush(self) -> Iterator[None]:
        """Send on what operators held back for the commit, see ``OperatorChain.flush``."""
        return self._opened().flush()

    def seal(self) -> dict[str, dict[bytes, bytes | None]]:
        """Staged writes by store, encoded, now those of a commit; stores without any are left out."""
        return self._layout_check.seal(self.stores)

    def offsets(self, *, unmoved: bool = False) -> dict[TopicPartition, Position]:
        """Positions that are ahead of what is committed; the others too when ``unmoved``."""
        stream_time, marks = self.context.stream_time, self.changelog_marks
        return {
            partition: Position(input_.next_offset, encode_metadata(stream_time, marks, input_.at_start))
            for partition, input_ in self.inputs.items()
            if input_.next_offset is not None and (unmoved or input_.next_offset != input_.committed)
        }

    def committed(
        self,
        writes: dict[str, dict[bytes, bytes | None]],
        positions: dict[str, int],
        offsets: dict[TopicPartition, Position],
        records: int,
    ) -> None:
        """Kafka has committed so many records: make the same true in the backend, in one step."""
        facts = marks_taken(writes)
        # What a store reflects of an input that is its changelog is what is committed as processed.
        sources = {name: TopicPartition(log.topic, self.id.partition) for name, log in self.source_logs().items()}
        reflected = {name: offsets[partition].offset for name, partition in sources.items() if partition in offsets}
        if writes or positions or reflected or facts:
            assert self.backend is not None, "committed after it was closed"
            self.backend.apply(
                writes,
                {**positions, **reflected},
                {(tp.topic, tp.partition): position.offset for tp, position in offsets.items()},
                {
                    name: store.segments.bound
                    for name, store in self.stores.items()
                    if store.segments is not None and store.segments.bound
                },
                facts=facts,
            )
        if self.new_topic_ids:
            self._keep_topic_ids({f"{INPUT_ID_FACT}{partition.topic}" for partition in offsets})
        self.uncommitted -= records
        for store in self.stores.values():
            store.committed()
        for partition, position in offsets.items():
            self.inputs[partition].committed = position.offset

    def _keep_topic_ids(self, facts: set[str]) -> None:
        assert self.backend is not None, "committed after it was closed"
        due = {fact: topic_id for fact, topic_id in self.new_topic_ids.items() if fact in facts}
        self.backend.note(due)
        self.new_topic_ids = {fact: topic_id for fact, topic_id in self.new_topic_ids.items() if fact not in due}

    @property
    def staged_bytes(self) -> int:
        """Estimate of the memory of uncommitted state."""
        return sum(store.staged_bytes + store.sealed_bytes for store in self.stores.values())

    @property
    def counters(self) -> TaskCounters:
        """What it has done."""
        return TaskCounters(self.processed, self._failures.failed, self._dropped_before + self.context.dropped)
