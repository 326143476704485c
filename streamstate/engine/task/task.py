"""A task: one sub-topology on one partition, with its inputs, its stores and its chain of operators.

Rule of this module: a task knows nothing of groups and transactions. It processes what it is given, says what a
transaction must carry for it, and takes back or keeps its uncommitted work when told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, NamedTuple

from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.ports import Message, Position, TopicPartition
from streamstate.engine.task.dead_letters import has_policy, other_event_time, processing_error, unreadable
from streamstate.engine.task.error_policy import ErrorPolicyHandler
from streamstate.engine.task.held_records import HeldRecords
from streamstate.engine.task.input_merger import InputMerger, MayGoOnWithout
from streamstate.engine.task.inputs import Input, TaskCounters, decoded_head, turn
from streamstate.engine.task.offset_metadata import note
from streamstate.engine.task.store_layout import StoreLayoutCheck, marks_taken
from streamstate.engine.task.store_marks import StoreMark, differences, mark_fact, mark_of
from streamstate.graph.names import changelog_topic
from streamstate.graph.node import Graph, SubTopology
from streamstate.operators.base.compilation import CompiledTask, SourceLog
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.due_results import FailedResult
from streamstate.operators.base.failures import OperatorFailed, TaskInterrupted
from streamstate.operators.base.holding import AsyncCalls
from streamstate.operators.compile import compile_task
from streamstate.operators.topics.timestamps import TooFarAhead
from streamstate.state.backend import Backend
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import StagedStore
from streamstate.state.undo import UndoLog
from streamstate.windows import LATEST_TIME_MS

log = logging.getLogger("streamstate.task")

PORTION = 1_000  # outputs of a commit that are sent at once
INPUT_ID = "input_id:"  # beginning of the facts that say which topic an input was
DEFAULT_CACHE_BYTES = 1 << 20  # of a store, until the worker shares its budget out


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
    """See the module.

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
        self._global_stores = global_stores
        self.id = task_id
        self.phase = Phase.CREATED
        self.inputs: dict[TopicPartition, Input] = {}
        self.backend: Backend | None = None
        self.stores: dict[str, StagedStore] = {}
        self.subtopology = subtopology
        self.lock_wait_since_ms: int | None = None
        self.changelog_marks = ""
        # Of inputs that were created again: facts to keep once the first offsets of the new topic are committed.
        self.ids_to_note: dict[str, str] = {}
        self.processed = 0
        self.uncommitted = 0
        self._specs = {name: graph.stores[name] for name in subtopology.stores}
        self._graph = graph
        self._application_id = application_id
        self._now_ms = now_ms
        self._limits = limits
        self._calls = calls
        self._undo: UndoLog | None = [] if has_policy(graph, subtopology) else None
        self._compiled: CompiledTask | None = None
        self._held_records: HeldRecords | None = None
        self._merger: InputMerger | None = None
        self._initialised = False
        self._layout_check = StoreLayoutCheck(str(task_id), known_marks)
        self._failures = ErrorPolicyHandler(str(task_id), now_ms, self._undo)
        self._dropped_before = 0
        self.context = self._new_context()

    # -- life ----------------------------------------------------------------------------------------------

    def _new_context(self) -> TaskContext:
        context = TaskContext(self._application_id, str(self.id), self._now_ms, self._limits)
        context.calls = self._calls
        return context

    def open(self, backend: Backend) -> None:
        """Take the backend and compile the chain of operators."""
        self.backend = backend
        try:
            self._compile()
        except TaskInterrupted:
            self.backend = None
            backend.close()
            raise

    def _compile(self) -> None:
        assert self.backend is not None, "compiled before it was opened"
        self._dropped_before += self.context.dropped
        self.context = context = self._new_context()
        self.stores = {
            name: staged_store(
                self._graph.stores[name], self.backend, DEFAULT_CACHE_BYTES, self._undo, lambda: context.stream_time
            )
            for name in self.subtopology.stores
        }
        self._compiled = compile_task(
            self._graph, self.subtopology, self.context, self.stores, self._undo, self._global_stores
        )
        self._failures.begin(self.context, self._compiled.policies)
        for input_ in self.inputs.values():
            input_.entry = self._compiled.sources[input_.partition.topic]
        holders = self._compiled.holders
        self._held_records = HeldRecords(holders, self.context, self._undo, self._held_failed) if holders else None
        behind = any(entry.out_of_order_ms for entry in self._compiled.sources.values())
        self._merger = InputMerger(
            context,
            self._failures,
            self._undo,
            self._held_records,
            lambda time_ms: self._punctuate(time_ms, False),
            one_by_one=behind or self._held_records is not None,
        )
        self._initialised = False

    def add_input(self, partition: TopicPartition) -> None:
        """Own one more partition."""
        input_ = Input(partition)
        if self._compiled is not None:
            input_.entry = self._compiled.sources[partition.topic]
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
        return {} if self._compiled is None else self._compiled.source_logs

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
        """State and offsets are there: initialise the processors and go."""
        assert self._compiled is not None, "run before it was opened"
        assert self.backend is not None, "run before it was opened"
        for store in self.stores.values():
            store.forget()
        adopted = self._layout_check.adopt(self._specs, self.stores, self.backend)
        if adopted:
            # Only now is it known how the stores were written.
            self._graph = replace(self._graph, stores={**self._graph.stores, **self._specs, **adopted})
            stream_time, stores = self.context.stream_time, self.stores
            self._compile()
            self.context.stream_time = stream_time
            for name, store in self.stores.items():
                store.cache_bytes = stores[name].cache_bytes
        self._layout_check.build_indexes(self.stores, self.backend, self._undo)
        if not self._initialised:
            self._initialised = True
            try:
                self._compiled.init()
            except OperatorFailed as failure:
                raise processing_error(failure, None, str(self.id)) from failure.__cause__
        self.phase = Phase.RUNNING

    def reset(self) -> None:
        """Uncommitted work is void: forget it, its processors included, and start over from committed state."""
        if self.phase is Phase.CLOSED:
            return
        if self._compiled is not None:
            self._close_processors()
            self._compile()
        for input_ in self.inputs.values():
            input_.buffer.clear()
            input_.head = None
            input_.next_offset = None
            input_.committed = None
            input_.paused = False
        self.uncommitted = 0
        self.phase = Phase.CREATED

    def begin_close(self) -> None:
        """Drop uncommitted work and start to release the state; ``close`` comes next, and waits for the end."""
        if self.phase is Phase.CLOSED:
            return
        self._drop_work()
        if self.backend is not None:
            self.backend.begin_close()

    def _drop_work(self) -> None:
        self._close_processors()
        self.stores, self._compiled = {}, None

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

    def _close_processors(self) -> None:
        if self._held_records is not None:
            self._held_records.discard()
        if self._compiled is None or not self._initialised:
            return
        try:
            self._compiled.close()
        except OperatorFailed as failure:
            # What it processed is settled either way; a failing close must not keep the partitions.
            log.error("task %s: processor %r failed in close: %r", self.id, failure.operator, failure.__cause__)

    # -- processing ----------------------------------------------------------------------------------------

    def process(self, partition: TopicPartition, messages: Sequence[Message], batch_sizer: BatchSizer) -> int:
        """Process records of the task's only input, in order, until ``pace`` is halted; return how many.

        Raises:
            ProcessingError: a record failed under the policy ``fail``.
        """
        input_ = self.inputs[partition]
        entry, context, undo = input_.entry, self.context, self._undo
        assert entry is not None, "processing before it was opened"
        assert self._merger is not None, "processing before it was opened"
        if self._merger.one_by_one:
            return self._process_one_by_one(input_, messages, batch_sizer)
        decode_key, decode_value, extract = entry.decode_key, entry.decode_value, entry.timestamp
        forward, outputs, schedules = entry.forward, context.outputs, context.schedules
        latest = LATEST_TIME_MS
        assert input_.next_offset is not None, "running without a position"
        if messages[0].offset() < input_.next_offset:
            messages = [message for message in messages if message.offset() >= input_.next_offset]
            if not messages:
                return 0
        stream_time = before = context.stream_time
        mark = 0
        message: Message | None = None
        feed = batch_sizer.feed(messages)
        for message in feed:
            context.record = message
            if undo is not None:
                undo.clear()
                mark, before = len(outputs), stream_time
            key: Any = message.key()
            value: Any = message.value()
            try:
                try:
                    if key is not None:
                        key = decode_key(key)
                    if value is not None:
                        value = decode_value(value)
                    timestamp = message.timestamp()[1] if extract is None else extract(key, value)
                except TooFarAhead:
                    raise
                except Exception as error:
                    raise unreadable(entry, message) from error
                if type(timestamp) is not int or not 0 <= timestamp <= latest:
                    timestamp = other_event_time(entry, message, timestamp)
                if timestamp <= stream_time:
                    forward(key, value, timestamp)
                    continue
                context.stream_time = stream_time = timestamp
                forward(key, value, timestamp)
            except OperatorFailed as failure:
                self._failures.record_failed(failure, message, entry, mark)
                if undo is not None:
                    context.stream_time = stream_time = before
                continue
            if timestamp >= schedules.next_stream_ms:
                self._punctuate(timestamp, False)
        if message is None:
            return 0
        done = len(messages)
        if len(feed) != done:
            done = 1 + next(index for index, reached in enumerate(messages) if reached is message)
        input_.next_offset = message.offset() + 1
        self.processed, self.uncommitted = self.processed + done, self.uncommitted + done
        return done

    def _process_one_by_one(self, input_: Input, messages: Sequence[Message], batch_sizer: BatchSizer) -> int:
        """The same where something is to be done between records."""
        expected, merger = input_.next_offset, self._merger
        assert expected is not None, "running without a position"
        assert merger is not None, "processing before it was opened"
        done = 0
        for message in batch_sizer.feed([message for message in messages if message.offset() >= expected]):
            input_.buffer.append(message)
            input_.head = decoded_head(input_, self.context)
            merger.process_head(input_)
            done += 1
            self.processed, self.uncommitted = self.processed + 1, self.uncommitted + 1
        return done

    def buffer(self, partition: TopicPartition, messages: Sequence[Message]) -> None:
        """Keep records of one of several inputs until their turn comes."""
        input_ = self.inputs[partition]
        expected = input_.buffer[-1].offset() + 1 if input_.buffer else input_.next_offset
        assert expected is not None, "running without a position"
        input_.buffer.extend(message for message in messages if message.offset() >= expected)
        input_.empty_since_ms = None

    def process_buffered(self, batch_sizer: BatchSizer, may_go_on_without: MayGoOnWithout) -> int:
        """Process buffered records, smallest event time first, as many as make a batch; return how many.

        Args:
            batch_sizer: says how many that is, and ends it early.
            may_go_on_without: says of an empty input whether to stop waiting for it.

        Raises:
            ProcessingError: a record failed under the policy ``fail``.
        """
        assert self._merger is not None, "processing before it was opened"
        done = self._merger.process(sorted(self.inputs.values(), key=turn), batch_sizer, may_go_on_without)
        self.processed, self.uncommitted = self.processed + done, self.uncommitted + done
        return done

    def punctuate_wall_clock(self, now_ms: int) -> int:
        """Do what is due by the wall clock; return how much it was."""
        schedules = self.context.schedules
        if now_ms < schedules.next_wall_ms:
            return 0
        released = 0
        if self._held_records is not None and now_ms >= schedules.release_ms:
            self._held_records.release(every=False)
            released = 1
        return released + self._punctuate(now_ms, True)

    def _punctuate(self, time_ms: int, wall_clock: bool) -> int:
        if self._undo is not None:
            self._undo.clear()
        try:
            return self.context.schedules.run(time_ms, wall_clock)
        except OperatorFailed as failure:
            raise processing_error(failure, None, str(self.id)) from failure.__cause__

    # -- failures ------------------------------------------------------------------------------------------

    def _held_failed(self, failure: OperatorFailed, message: Message | None, mark: int) -> None:
        if message is None:
            raise processing_error(failure, None, str(self.id)) from failure.__cause__
        entry = self.inputs[TopicPartition(message.topic(), message.partition())].entry
        assert entry is not None, "held before it was opened"
        self._failures.record_failed(failure, message, entry, mark)

    # -- the transaction -----------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """True when ``flush`` has something to do."""
        compiled, held_records = self._compiled, self._held_records
        return (compiled is not None and compiled.pending) or (held_records is not None and held_records.pending)

    def flush(self) -> Iterator[None]:
        """Send on what was held back for the commit; outputs go to ``context.outputs``. Stops whenever there are many,
        for them to be taken: those of a whole commit would be more memory than the processor's caches have."""
        while self.pending:
            if self._held_records is not None:
                self._held_records.release(every=True)
            # What waits for the commit may be held behind it, and what was held may wait for the commit.
            yield from self._emit()

    def _emit(self) -> Iterator[None]:
        assert self._compiled is not None, "not compiled"
        self.context.record = None
        outputs, undo = self.context.outputs, self._undo
        for emitter in self._compiled.commit_emitters:
            forward = emitter.forward
            for encoded, arguments in emitter.take():
                mark = len(outputs)
                if undo is not None:
                    undo.clear()
                try:
                    forward(*arguments)
                except OperatorFailed as failure:
                    result = FailedResult(encoded, arguments[-1])
                    self._failures.result_failed(failure, result, emitter.on_error, mark)
                if len(outputs) >= PORTION:
                    yield

    def seal(self) -> dict[str, dict[bytes, bytes | None]]:
        """Staged writes by store, encoded, now those of a commit; stores without any are left out."""
        return self._layout_check.seal(self.stores)

    def offsets(self, *, unmoved: bool = False) -> dict[TopicPartition, Position]:
        """Positions that are ahead of what is committed; the others too when ``unmoved``."""
        stream_time, marks = self.context.stream_time, self.changelog_marks
        return {
            partition: Position(input_.next_offset, note(stream_time, marks, input_.at_start))
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
        if self.ids_to_note:
            self._note_ids({f"{INPUT_ID}{partition.topic}" for partition in offsets})
        self.uncommitted -= records
        for store in self.stores.values():
            store.committed()
        for partition, position in offsets.items():
            self.inputs[partition].committed = position.offset

    def _note_ids(self, facts: set[str]) -> None:
        assert self.backend is not None, "committed after it was closed"
        due = {fact: topic_id for fact, topic_id in self.ids_to_note.items() if fact in facts}
        self.backend.note(due)
        self.ids_to_note = {fact: topic_id for fact, topic_id in self.ids_to_note.items() if fact not in due}

    @property
    def staged_bytes(self) -> int:
        """Estimate of the memory of uncommitted state."""
        return sum(store.staged_bytes + store.sealed_bytes for store in self.stores.values())

    @property
    def counters(self) -> TaskCounters:
        """What it has done."""
        return TaskCounters(self.processed, self._failures.failed, self._dropped_before + self.context.dropped)
