"""The worker: one loop over poll, process, restore and commit, for all tasks of a process.

Rule of this module: deterministic and single-threaded. ``tick`` is one turn; the same topology, the same answers of
the ports and the same clock give the same outputs. Errors are named by what they ask for: roll back, give up, or
end with a message for the user.

``committing`` says in which order things become true, and what a crash between two steps leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from streamstate.engine.assign.assignment import Assignment, Expect, OpenBackend
from streamstate.engine.assign.cluster_watch import ClusterWatch
from streamstate.engine.assign.global_tables import GlobalState
from streamstate.engine.assign.restore import Restorer
from streamstate.engine.assign.topics import recounted
from streamstate.engine.commit.coordinator import CommitCoordinator
from streamstate.engine.commit.group_membership import GroupMembership
from streamstate.engine.commit.repartition_purge import RepartitionPurger
from streamstate.engine.commit.transaction import Committer, TransactionFailed
from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.flow.batches import by_partition
from streamstate.engine.flow.outage import OutageMonitor
from streamstate.engine.flow.topic_limits import TopicLimits
from streamstate.engine.metrics import WorkerMetrics, WorkerStatus
from streamstate.engine.ports import (
    Admin,
    Background,
    Clock,
    Consumer,
    Fenced,
    GroupTaken,
    Message,
    OutOfRange,
    RestoreConsumer,
    Retriable,
    TopicPartition,
    Unavailable,
)
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.backpressure import InputBackpressure
from streamstate.engine.task.store_marks import StoreMark
from streamstate.engine.task.task import Phase, Task, TaskId
from streamstate.errors import ConfigError, ProcessingError
from streamstate.graph.names import repartition_topic
from streamstate.graph.node import Graph, SubTopology
from streamstate.operators.base.failures import TaskInterrupted
from streamstate.operators.base.holding import AsyncCalls, NoAsyncCalls
from streamstate.state.backend import StateDamaged

log = logging.getLogger("streamstate.worker")

WAITING_POLL_MS = 10
# While a commit is under way: what is sent waits for its end to be noticed.
COMMITTING_POLL_MS = 2


class Worker:
    """See the module.

    Args:
        graph: the topology.
        settings: of the worker.
        partition_counts: partitions of every topic the topology reads, by real name.
        consumer, admin, clock: ports.
        background: for questions to the admin client that the loop does not wait for.
        committer: ``Transaction`` or ``AtLeastOnce``.
        restore_consumer: makes the restore consumer when it is first needed.
        open_backend: opens a task's state.
        expect: told of the tasks that are about to be opened; may refuse them.
        calls: runs coroutines, for ``map_async``.
        known_marks: of the application's stores when this process started; None: not looked at.
    """

    def __init__(
        self,
        graph: Graph,
        settings: WorkerSettings,
        partition_counts: Mapping[str, int],
        *,
        consumer: Consumer,
        admin: Admin,
        background: Background,
        clock: Clock,
        committer: Committer,
        restore_consumer: Callable[[], RestoreConsumer],
        open_backend: OpenBackend,
        expect: Expect = lambda stores_of_tasks: None,
        calls: AsyncCalls | None = None,
        known_marks: Mapping[str, tuple[StoreMark, ...]] | None = None,
    ) -> None:
        self._graph = graph
        self._calls = calls or NoAsyncCalls()
        self._settings = settings
        self._known_marks = known_marks
        self._consumer = consumer
        self._admin = admin
        self._clock = clock
        self._committer = committer
        self._limits = TopicLimits(admin, clock.now_ms, settings.record_bytes, compressed=settings.compressed)
        self.global_state = GlobalState(graph, admin, restore_consumer, open_backend, settings.restore_batch)
        self._restorer = Restorer(restore_consumer, settings.restore_batch, clock.monotonic_ms)
        self.assignment = Assignment(
            graph,
            settings,
            partition_counts,
            consumer,
            admin,
            self._restorer,
            open_backend,
            expect,
            self._make_task,
            clock.monotonic_ms,
            lambda: recounted(graph, settings.application_id, admin),
            known_marks,
        )
        repartitions = [
            repartition_topic(settings.application_id, name)
            for part in graph.subtopologies
            for name in part.repartition_sources
        ]
        self._purger = RepartitionPurger(admin, clock, repartitions, settings.purge_interval_ms)
        self._watch = ClusterWatch(graph, settings, admin, background, clock, self.global_state.grown)
        self._backpressure = InputBackpressure(consumer, clock, settings)
        self._membership = GroupMembership(consumer)
        self._outage_monitor = OutageMonitor(clock, settings.broker_timeout_ms)
        self._metrics = WorkerMetrics()
        self.commits = CommitCoordinator(
            settings, self.assignment, committer, self._membership, clock, self._metrics, self._committed
        )
        self._callback_failure: BaseException | None = None
        self._batch_sizer = BatchSizer(clock, settings.batch_ms, settings.max_poll_records)
        self._one_topic = len(self.assignment.topics) == 1
        self._started = self._closing = False

    def _make_task(self, task_id: TaskId, part: SubTopology) -> Task:
        return Task(
            task_id,
            self._graph,
            part,
            self._settings.application_id,
            self._clock.now_ms,
            self._limits.of,
            self._calls,
            self.global_state.stores,
            self._known_marks,
        )

    def _share_cache(self) -> None:
        """Give every store held now the same part of the budget."""
        stores = [store for task in self.assignment.tasks.values() for store in task.stores.values()]
        for store in stores:
            store.cache_bytes = self._settings.cache_bytes // len(stores)

    # -- the loop ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Join the group."""
        self._consumer.subscribe(self.assignment.topics, self)
        self._started = True

    def tick(self) -> None:
        """One turn: poll, process, restore, commit when it is time.

        Raises:
            StreamStateError: something only the user can mend; the worker must be closed.
        """
        try:
            ready = self._committer.ready()
            self._limits.refresh(self._clock.now_ms())
            self.commits.proceed()
            self._watch.look()
            self.global_state.poll()
            self._poll(ready)
            if ready:
                if self.assignment.waiting and self.global_state.complete:
                    self.assignment.initialise()
                    self._share_cache()
                self._restore()
                self._punctuate()
                if self.commits.due():
                    self.commits.begin()
                if self.assignment.unsettled:
                    self._outage_monitor.outage(self.assignment.unsettled, expected=True)
                else:
                    self._outage_monitor.answered()
            else:
                self._outage_monitor.outage("no broker lets this process take its transactional id")
        except TransactionFailed as failure:
            self._rolled_back_by(failure)
        except TaskInterrupted as interruption:
            # Records were in hand: those not processed would be skipped.
            self._rollback(str(interruption))
            self._outage_monitor.outage(str(interruption))
        except StateDamaged as damage:
            self._state_damaged(damage)
        except Unavailable as error:
            self._outage_monitor.outage(str(error))
        except Retriable as error:
            log.info("trying again: %s", error)

    def _poll(self, ready: bool) -> None:
        buffered = any(i.buffer for t in self.assignment.running() if len(t.inputs) > 1 for i in t.inputs.values())
        if buffered or self._restorer.busy:
            timeout_ms = 0
        elif self.assignment.waiting or not ready:
            timeout_ms = WAITING_POLL_MS
        else:
            timeout_ms = self._idle_ms()
        try:
            messages = self._consumer.poll(self._batch_sizer.size, timeout_ms)
        except OutOfRange as error:
            self._out_of_range(error)
            return
        except GroupTaken as error:
            self._watch.kept_out(str(error))
            return
        except Fenced as error:
            raise ConfigError(
                f"another process has joined the group under this one's --instance-id, so this one must stop: {error}. "
                f"Give each process its own"
            ) from error
        self._batch_sizer.begin()
        processed = 0
        try:
            processed = self._take(messages)
            for task in self.assignment.running():
                if len(task.inputs) > 1:
                    processed += task.process_buffered(self._batch_sizer, self._backpressure.may_go_on_without)
                    self.commits.send(task)
                    self._backpressure.regulate(task)
                    self._commit_within_batch()
        finally:
            self._batch_sizer.end(processed, len(messages))

    def _idle_ms(self) -> int:
        """How long a poll may wait when there is nothing else to do."""
        wait = COMMITTING_POLL_MS if self.commits.under_way else self._settings.poll_ms
        if self.commits.pending():
            wait = min(wait, self.commits.due_in_ms())
        now = self._clock.now_ms()
        for task in self.assignment.running():
            wait = min(wait, task.context.schedules.next_wall_ms - now)
        return max(0, wait)

    def _take(self, messages: Sequence[Message]) -> int:
        failure, self._callback_failure = self._callback_failure, None
        if failure is not None:
            raise failure
        if not messages:
            return 0
        try:
            return self._process(messages)
        except Retriable as error:
            # Taken from the client, these records come again only after a roll-back.
            raise TransactionFailed(f"with records in hand: {error}") from error

    def _process(self, messages: Sequence[Message]) -> int:
        self._membership.records_taken()
        processed = 0
        last: dict[TopicPartition, int] = {}
        for partition, group in by_partition(messages, self._one_topic):
            task = self.assignment.of_partition.get(partition)
            if task is None or task.phase is not Phase.RUNNING:
                continue
            if len(task.inputs) == 1:
                last[partition] = group[-1].offset()
                processed += task.process(partition, group, self._batch_sizer)
                self.commits.send(task)
                self._commit_within_batch()
            else:
                task.buffer(partition, group)
        if self._batch_sizer.halted:
            self._read_again(last)
        return processed

    def _commit_within_batch(self) -> None:
        """Slow records: an open transaction must not wait for the rest of the batch."""
        if self.commits.due():
            self._batch_sizer.rest()
            self.commits.begin()
            self._batch_sizer.resume()

    def _read_again(self, last: Mapping[TopicPartition, int]) -> None:
        """The batch was halted: what was not reached must come again. ``last``: offset of what was at hand."""
        offsets = {}
        for partition, offset in last.items():
            task = self.assignment.of_partition.get(partition)
            if task is not None and task.phase is Phase.RUNNING:
                next_offset = task.inputs[partition].next_offset
                if next_offset is not None and next_offset <= offset:
                    offsets[partition] = next_offset
        if offsets:
            self._consumer.start(offsets)

    def _restore(self) -> None:
        if not self._restorer.busy:
            return
        busy_elsewhere = bool(self.assignment.running())
        try:
            complete = self._restorer.poll(0 if busy_elsewhere else WAITING_POLL_MS)
        except OutOfRange as error:
            log.warning("a changelog was cut off while it was read, its store is rebuilt: %s", error)
            for task in self._restorer.tasks_reading(error.partition):
                self.assignment.reset_task(task)
            return
        for task in complete:
            self.assignment.run(task)

    def _punctuate(self) -> None:
        now = self._clock.now_ms()
        for task in self.assignment.running():
            if task.punctuate_wall_clock(now):
                self.commits.send(task)

    # -- committing ----------------------------------------------------------------------------------------

    def uncommitted(self) -> bool:
        """True when a commit would have something to do, or is under way."""
        return self.commits.under_way or self.commits.pending()

    def request_commit(self) -> None:
        """Commit within the next turn, whatever the interval says (Kafka Streams: ``ProcessorContext.commit``)."""
        self.commits.request()

    def commit(self) -> None:
        """Commit what all tasks have done, and wait for the end of it; does nothing when there is nothing.

        Raises:
            TransactionFailed: nothing is committed, or it is unknown.
            ProcessingError: a held-back result failed.
        """
        self.commits.commit()

    def _committed(self, tasks: Sequence[Task]) -> None:
        self._outage_monitor.committed()
        self._purger.committed(tasks)

    # -- things that go wrong ------------------------------------------------------------------------------

    def _rollback(self, reason: str, *, migrated: bool = False) -> None:
        """Nothing uncommitted ever was: drop it and start over from what Kafka has."""
        log.warning("rolling back%s: %s", " (partitions moved)" if migrated else "", reason)
        self.commits.roll_back()

    def _rolled_back_by(self, failure: TransactionFailed) -> None:
        self._rollback(str(failure), migrated=failure.migrated)
        if failure.refused:
            raise ProcessingError(
                f"the broker does not accept a record of this application: {failure}. Nothing of its transaction was "
                f"kept. If the topic does not exist: streamstate topics create TOPIC --partitions N. If the record is "
                f"too large: raise the topic's max.message.bytes and, by --set, the client's message.max.bytes"
            ) from failure
        self._outage_monitor.rollback(str(failure))

    def _state_damaged(self, damage: StateDamaged) -> None:
        """Kafka has what was committed: the task starts over without what cannot be read."""
        # First, so that nothing reads it once more on the way.
        self.assignment.drop_state(damage.backend)
        self._rollback(str(damage))

    def _out_of_range(self, error: OutOfRange) -> None:
        task = None if error.partition is None else self.assignment.of_partition.get(error.partition)
        if task is None:
            raise TransactionFailed(f"a read position is not in the log: {error}")
        # What was processed is valid: commit it, then let the start-up checks say what happened.
        self.commits.commit()
        self.assignment.reset_task(task)

    # -- what the group says (called within consumer.poll and consumer.close) ------------------------------

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """See ``RebalanceListener``."""
        self._membership.assigned()
        self._watch.let_in()
        self._guarded(lambda: self.assignment.assigned(partitions))

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """See ``RebalanceListener``. Commits first: this is the last moment for these partitions."""
        self._guarded(lambda: self._revoked(partitions))

    def _revoked(self, partitions: Sequence[TopicPartition]) -> None:
        if any(
            self.assignment.of_partition[p].phase is Phase.RUNNING
            for p in partitions
            if p in self.assignment.of_partition
        ):
            try:
                self._membership.revoking()
                self.commits.commit(self._settings.revoke_timeout_ms)
            except TransactionFailed as failure:
                self._rolled_back_by(failure)
            except (TaskInterrupted, Retriable) as interruption:
                # There is no second try: whatever it was, these partitions go now.
                self._rollback(str(interruption))
            except StateDamaged as damage:
                self._state_damaged(damage)
        self._metrics.closing(self.assignment.tasks_of(partitions))
        self.assignment.revoked(partitions, keep_open=self._settings.eager and not self._closing)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """See ``RebalanceListener``. Nothing of these may be committed, so nothing of the transaction may."""
        self._guarded(lambda: self._lost(partitions))

    def _lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._metrics.closing(self.assignment.tasks_of(partitions))
        self.assignment.revoked(partitions, keep_open=False)
        self._rollback(f"{len(partitions)} partitions were lost", migrated=True)

    def _guarded(self, callback: Callable[[], None]) -> None:
        """Errors must not unwind through the client, which would drop the records it has in hand."""
        try:
            callback()
        except BaseException as error:  # noqa: BLE001 - raised again by the tick that polled
            self._callback_failure = error

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, *, commit: bool = True) -> None:
        """Commit (or drop) what is uncommitted, leave the group, release the state.

        Args:
            commit: false after an error, or to drop uncommitted work.
        """
        self._closing = True
        try:
            if commit and self._started:
                try:
                    self.commits.commit()
                except TransactionFailed as failure:
                    self._rolled_back_by(failure)
                except (TaskInterrupted, Retriable) as interruption:
                    self._rollback(str(interruption))
                except StateDamaged as damage:
                    self._state_damaged(damage)
            else:
                self.commits.abort()
                self.assignment.reset()
        finally:
            self._metrics.closing(self.assignment.tasks.values())
            self.assignment.close()
            self._restorer.close()
            self.global_state.close()
            if self._started:
                self._consumer.close()
            self._committer.close()
            self._watch.close()
        failure_in_callback, self._callback_failure = self._callback_failure, None
        if failure_in_callback is not None:
            raise failure_in_callback

    def interrupt(self) -> None:
        """End the batch in hand after the record in hand, and process no more: ``close`` comes next. May be called
        from a signal handler or another thread."""
        self._batch_sizer.stop()

    def hurry(self, limit_ms: int) -> None:
        """End the batch in hand after the record in hand if it has taken longer than ``limit_ms``: what has become
        slow all at once must not hold up commits and polls. May be called from another thread."""
        self._batch_sizer.hurry(limit_ms)

    # -- numbers -------------------------------------------------------------------------------------------

    def status(self) -> WorkerStatus:
        """Numbers for people and programs; cheap, without a round trip."""
        return self._metrics.status(self.assignment.tasks.values(), self._consumer, self._restorer.progress())
