"""The operators of a task, compiled over its open state.

A chain lives from one roll-back to the next: uncommitted work is dropped together with the chain that made it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from streamstate.engine.ports import Message
from streamstate.engine.task.dead_letters import processing_error
from streamstate.engine.task.error_policy import ErrorPolicyHandler
from streamstate.engine.task.held_records import HeldRecords
from streamstate.engine.task.input_merger import InputMerger
from streamstate.engine.task.record_processor import RecordProcessor
from streamstate.graph.node import Graph, SubTopology
from streamstate.operators.base.compilation import SourceEntry, SourceLog
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.due_results import FailedResult
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.compile import compile_task
from streamstate.state.backend import Backend
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import StagedStore
from streamstate.state.undo import UndoLog

log = logging.getLogger("streamstate.task")

CHUNK_RECORDS = 1_000  # records of a commit that are sent at once
DEFAULT_CACHE_BYTES = 1 << 20  # of a store, until the worker has divided its budget


@dataclass(frozen=True, slots=True)
class ChainParts:
    """What stays the same from chain to chain of one task.

    Attributes:
        task_id: for messages.
        subtopology: the part of the topology that the task runs.
        undo: what the record in hand has staged; None when no policy needs it.
        failures: applies error policies, and counts.
        global_stores: of the process' global tables.
    """

    task_id: str
    subtopology: SubTopology
    undo: UndoLog | None
    failures: ErrorPolicyHandler
    global_stores: Mapping[str, StagedStore]


class OperatorChain:
    """Runs records, punctuations and commits through compiled operators.

    Args:
        parts: of the task.
        graph: the topology, with the stores as they are written.
        context: of the task.
        backend: the state.

    Attributes:
        stores: of the operators, by name.
        sources: where records enter, by topic.
        records: processes records of a task with one input.
        merger: processes records of a task with several inputs.

    Raises:
        TaskInterrupted: no broker answers a question about an output topic.
    """

    def __init__(self, parts: ChainParts, graph: Graph, context: TaskContext, backend: Backend) -> None:
        self._task_id = parts.task_id
        self._context = context
        self._undo = undo = parts.undo
        self._failures = failures = parts.failures
        self._initialised = False
        self.stores = {
            name: staged_store(graph.stores[name], backend, DEFAULT_CACHE_BYTES, undo, lambda: context.stream_time)
            for name in parts.subtopology.stores
        }
        self._compiled = compiled = compile_task(
            graph, parts.subtopology, context, self.stores, undo, parts.global_stores
        )
        self.sources: Mapping[str, SourceEntry] = compiled.sources
        failures.begin(context, compiled.policies)
        holders = compiled.holders
        self._held_records = HeldRecords(holders, context, undo, self._held_record_failed) if holders else None
        stays_behind = any(entry.out_of_order_ms for entry in compiled.sources.values())
        self.merger = InputMerger(
            context,
            failures,
            undo,
            self._held_records,
            self._punctuate_stream_time,
            one_by_one=stays_behind or self._held_records is not None,
        )
        self.records = RecordProcessor(context, failures, undo, self.merger, self._punctuate_stream_time)

    @property
    def source_logs(self) -> dict[str, SourceLog]:
        """By store, the input that is the store's changelog."""
        return self._compiled.source_logs

    # -- life ----------------------------------------------------------------------------------------------

    def init(self) -> None:
        """Initialise the processors, once.

        Raises:
            ProcessingError: one failed.
        """
        if self._initialised:
            return
        self._initialised = True
        try:
            self._compiled.init()
        except OperatorFailed as failure:
            raise processing_error(failure, None, self._task_id) from failure.__cause__

    def close(self) -> None:
        """Discard held records and close the processors."""
        if self._held_records is not None:
            self._held_records.discard()
        if not self._initialised:
            return
        try:
            self._compiled.close()
        except OperatorFailed as failure:
            # Its work is committed or void either way; a failing close must not keep the partitions.
            log.error("task %s: processor %r failed in close: %r", self._task_id, failure.operator, failure.__cause__)

    # -- punctuate -----------------------------------------------------------------------------------------

    def punctuate_wall_clock(self, now_ms: int) -> int:
        """Call what is due by the wall clock; return how much it was."""
        schedules = self._context.schedules
        released = 0
        if self._held_records is not None and now_ms >= schedules.release_ms:
            self._held_records.release(every=False)
            released = 1
        return released + self._punctuate(now_ms, True)

    def _punctuate_stream_time(self, time_ms: int) -> int:
        return self._punctuate(time_ms, False)

    def _punctuate(self, time_ms: int, wall_clock: bool) -> int:
        if self._undo is not None:
            self._undo.clear()
        try:
            return self._context.schedules.run(time_ms, wall_clock)
        except OperatorFailed as failure:
            raise processing_error(failure, None, self._task_id) from failure.__cause__

    def _held_record_failed(self, failure: OperatorFailed, message: Message | None, mark: int) -> None:
        if message is None:
            raise processing_error(failure, None, self._task_id) from failure.__cause__
        self._failures.record_failed(failure, message, self.sources[message.topic()], mark)

    # -- flush for a commit --------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """True when ``flush`` has something to do."""
        return self._compiled.pending or (self._held_records is not None and self._held_records.pending)

    def flush(self) -> Iterator[None]:
        """Send on what operators held back for the commit; outputs go to ``context.outputs``.

        Yields whenever there are many outputs, for the caller to take them: those of a whole commit would be more
        memory than the processor's caches have.
        """
        while self.pending:
            if self._held_records is not None:
                self._held_records.release(every=True)
            # Results for the commit may be held behind it, and held records may lead to results for the commit.
            yield from self._emit()

    def _emit(self) -> Iterator[None]:
        self._context.record = None
        outputs, undo = self._context.outputs, self._undo
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
                if len(outputs) >= CHUNK_RECORDS:
                    yield
