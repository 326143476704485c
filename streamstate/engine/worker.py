"""The worker: one loop over poll, process, restore and commit, for all tasks of a process.

Rule of this module: deterministic and single-threaded. ``tick`` is one turn; the same topology, the same answers of
the ports and the same clock give the same outputs. Errors are named by what they ask for: roll back, give up, or
end with a message for the user.

The order of a commit, and what a crash between two steps leaves:

1. held-back results are sent            nothing committed: the broker aborts, the records are processed again
2. changelog records are sent            the same
3. everything is acknowledged            the same
4. input offsets join the transaction    the same
5. the transaction commits               if unknown: repeated, or settled by a new producer before anything is read
6. stores take the same writes           stores are behind their changelogs: restore replays exactly these
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from streamstate.engine.assignment import Assignment, OpenBackend
from streamstate.engine.limits import TopicLimits
from streamstate.engine.ports import (
    Admin,
    Clock,
    Consumer,
    GroupMetadata,
    Message,
    OutOfRange,
    Output,
    Position,
    RestoreConsumer,
    Retriable,
    TopicPartition,
    Unavailable,
)
from streamstate.engine.restore import RestoreProgress, Restorer
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task import Input, Phase, Task, TaskId
from streamstate.engine.transaction import Committer, TransactionFailed
from streamstate.errors import BrokerUnavailable, ProcessingError
from streamstate.operators import TaskInterrupted
from streamstate.topology.specs import Graph, SubTopology

log = logging.getLogger("streamstate.worker")

MIN_BATCH = 1
FIRST_BATCH = 100
WAITING_POLL_MS = 10
OUTAGE_LOG_MS = 60_000


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What the worker has done and where it stands.

    Attributes:
        processed: records processed, rolled-back ones included.
        sent: records sent to topics, changelogs not included.
        committed: records that are committed.
        commits, rollbacks: transactions.
        failed: records that failed under ``continue`` or ``dead_letter``.
        dropped: records that keyed operators left out.
        lag: records behind the logs' ends, as far as known.
        tasks: phase by task.
        restore: progress of restoring.
    """

    processed: int
    sent: int
    committed: int
    commits: int
    rollbacks: int
    failed: int
    dropped: int
    lag: int
    tasks: dict[str, str]
    restore: RestoreProgress


class Worker:
    """See the module.

    Args:
        graph: the topology.
        settings: of the worker.
        partition_counts: partitions of every topic the topology reads, by real name.
        consumer, admin, clock: ports.
        committer: ``Transaction`` or ``AtLeastOnce``.
        restore_consumer: makes the restore consumer when it is first needed.
        open_backend: opens a task's state.
    """

    def __init__(
        self,
        graph: Graph,
        settings: WorkerSettings,
        partition_counts: Mapping[str, int],
        *,
        consumer: Consumer,
        admin: Admin,
        clock: Clock,
        committer: Committer,
        restore_consumer: Callable[[], RestoreConsumer],
        open_backend: OpenBackend,
    ) -> None:
        self._graph = graph
        self._settings = settings
        self._consumer = consumer
        self._admin = admin
        self._clock = clock
        self._committer = committer
        self._limits = TopicLimits(admin, clock.now_ms)
        self._restorer = Restorer(restore_consumer, settings.restore_batch, clock.monotonic_ms)
        self.assignment = Assignment(
            graph,
            settings,
            partition_counts,
            consumer,
            admin,
            self._restorer,
            open_backend,
            self._make_task,
            clock.monotonic_ms,
        )
        self._repartitions = {
            f"{settings.application_id}-{name}" for part in graph.subtopologies for name in part.repartition_sources
        }
        self._metadata: GroupMetadata | None = None
        self._callback_failure: BaseException | None = None
        self._batch = min(FIRST_BATCH, settings.max_poll_records)
        now = clock.monotonic_ms()
        self._last_commit_ms = now
        self._last_purge_ms = now
        self._failing_since_ms: int | None = None
        self._outage_logged_ms = 0
        self._sent = 0
        self._sent_since_commit = False
        self._commits = 0
        self._rollbacks = 0
        self._committed = 0
        self._closed_counters = [0, 0, 0]
        self._started = False
        self._closing = False

    def _make_task(self, task_id: TaskId, part: SubTopology) -> Task:
        stores = max(1, len(part.stores) * (len(self.assignment.tasks) + 1))
        return Task(
            task_id,
            self._graph,
            part,
            self._settings.application_id,
            self._clock.now_ms,
            self._limits.latest,
            self._settings.cache_bytes // stores,
        )

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
            self._poll(ready)
            if ready:
                self.assignment.initialise()
                self._restore()
                self._punctuate()
                if self._commit_is_due():
                    self.commit()
                    self._failing_since_ms = None
            else:
                self._outage("the broker does not let this process take its transactional id")
        except TransactionFailed as failure:
            self._rolled_back_by(failure)
        except TaskInterrupted as interruption:
            # Records were in hand: those not processed would be skipped.
            self._rollback(str(interruption))
            self._outage(str(interruption))
        except Unavailable as error:
            self._outage(str(error))
        except Retriable as error:
            log.info("trying again: %s", error)

    def _poll(self, ready: bool) -> None:
        if not ready:
            self._take(self._consumer.poll(1, WAITING_POLL_MS))
            return
        buffered = [
            t for t in self.assignment.running() if len(t.inputs) > 1 and any(i.buffer for i in t.inputs.values())
        ]
        if buffered or self._restorer.busy:
            timeout_ms = 0
        elif self.assignment.waiting:
            timeout_ms = WAITING_POLL_MS
        else:
            timeout_ms = self._idle_ms()
        try:
            messages = self._consumer.poll(self._batch, timeout_ms)
        except OutOfRange as error:
            self._out_of_range(error)
            return
        self._take(messages)
        for task in self.assignment.running():
            if len(task.inputs) > 1:
                task.process_buffered(self._batch, self._may_go_on_without)
                self._send(task)
                self._regulate(task)

    def _idle_ms(self) -> int:
        """How long a poll may wait when there is nothing else to do."""
        wait = self._settings.poll_ms
        if self._uncommitted():
            due = self._last_commit_ms + self._settings.commit_interval_ms - self._clock.monotonic_ms()
            wait = min(wait, due)
        now = self._clock.now_ms()
        for task in self.assignment.running():
            wait = min(wait, task.context.schedules.next_wall_ms - now)
        return max(0, wait)

    def _take(self, messages: Sequence[Message]) -> None:
        failure, self._callback_failure = self._callback_failure, None
        if failure is not None:
            raise failure
        if not messages:
            return
        try:
            self._process(messages)
        except Retriable as error:
            # Taken from the client, these records come again only after a roll-back.
            raise TransactionFailed(f"with records in hand: {error}") from error

    def _process(self, messages: Sequence[Message]) -> None:
        # The membership under which these records were read; offsets are sent with it.
        metadata = self._consumer.group_metadata()
        if metadata.is_member:
            self._metadata = metadata
        began = self._clock.monotonic_ms()
        for partition, group in _by_partition(messages):
            task = self.assignment.of_partition.get(partition)
            if task is None or task.phase is not Phase.RUNNING:
                continue
            if len(task.inputs) == 1:
                task.process(partition, group)
                self._send(task)
                # Slow records: an open transaction must not wait for the next group.
                if self._commit_is_due():
                    self.commit()
            else:
                task.buffer(partition, group)
        self._adapt(len(messages), self._clock.monotonic_ms() - began)

    def _adapt(self, records: int, took_ms: int) -> None:
        # Aim at batches of batch_ms: small ones when records are slow, so that commits, rebalances and signals
        # are never far away.
        target = self._settings.batch_ms
        if took_ms > 2 * target:
            self._batch = max(MIN_BATCH, records * target // took_ms)
        elif took_ms <= target and records >= self._batch:
            self._batch = min(self._settings.max_poll_records, self._batch * 2)

    def _send(self, task: Task) -> None:
        outputs = task.context.outputs
        if outputs:
            self._committer.send(outputs)
            self._sent += len(outputs)
            self._sent_since_commit = True
            outputs.clear()

    def _may_go_on_without(self, input_: Input) -> bool:
        now = self._clock.monotonic_ms()
        if input_.empty_since_ms is None:
            input_.empty_since_ms = now
        waited = now - input_.empty_since_ms
        lag = self._consumer.lag({input_.partition: input_.next_offset or 0}).get(input_.partition)
        if lag == 0:
            return waited >= self._settings.max_task_idle_ms
        return waited >= max(self._settings.fetch_wait_ms, self._settings.max_task_idle_ms)

    def _regulate(self, task: Task) -> None:
        """Pause inputs whose buffers are full, resume those that have drained."""
        full = self._settings.buffer_records
        for partition, input_ in task.inputs.items():
            if input_.buffer:
                input_.empty_since_ms = None
            if not input_.paused and len(input_.buffer) >= full:
                self._consumer.pause([partition])
                input_.paused = True
            elif input_.paused and len(input_.buffer) < full // 2:
                self._consumer.resume([partition])
                input_.paused = False

    def _restore(self) -> None:
        if not self._restorer.busy:
            return
        busy_elsewhere = bool(self.assignment.running())
        for task in self._restorer.poll(0 if busy_elsewhere else WAITING_POLL_MS):
            log.info("task %s is restored", task.id)
            self.assignment.run(task)

    def _punctuate(self) -> None:
        now = self._clock.now_ms()
        for task in self.assignment.running():
            if task.punctuate_wall_clock(now):
                self._send(task)

    # -- committing ----------------------------------------------------------------------------------------

    def _uncommitted(self) -> bool:
        if self._sent_since_commit:
            return True
        return any(
            input_.next_offset != input_.committed
            for task in self.assignment.running()
            for input_ in task.inputs.values()
        ) or any(store.staged for task in self.assignment.running() for store in task.stores.values())

    def _commit_is_due(self) -> bool:
        if self._clock.monotonic_ms() - self._last_commit_ms >= self._settings.commit_interval_ms:
            return True
        return sum(task.staged_bytes for task in self.assignment.running()) >= self._settings.staging_bytes

    def commit(self, timeout_ms: int | None = None) -> None:
        """Commit what all tasks have done; does nothing when there is nothing.

        Args:
            timeout_ms: how long to try; None: as the settings say.

        Raises:
            TransactionFailed: nothing is committed, or it is unknown.
            ProcessingError: a held-back result failed.
        """
        if not self._uncommitted():
            self._last_commit_ms = self._clock.monotonic_ms()
            return
        tasks = self.assignment.running()
        for task in tasks:
            task.flush()
            self._send(task)
        sealed = [(task, task.seal()) for task in tasks]
        acknowledged: dict[tuple[TaskId, str], int] = {}
        changes = self._changelog_records(sealed, acknowledged)
        if changes:
            self._committer.send(changes)
        offsets: dict[TopicPartition, Position] = {}
        for task in tasks:
            offsets.update(task.offsets())
        self._committer.commit(offsets, self._current_metadata(), timeout_ms or self._settings.commit_timeout_ms)
        # Kafka is the truth. Crashing here leaves stores behind their changelogs, which restore repairs; the
        # reverse order would leave them ahead.
        for task, writes in sealed:
            positions = {
                store: acknowledged[task.id, store] + 1 for store in writes if (task.id, store) in acknowledged
            }
            advanced = {partition: offsets[partition] for partition in task.inputs if partition in offsets}
            self._committed += task.uncommitted
            task.committed(writes, positions, advanced)
        self._commits += 1
        self._sent_since_commit = False
        self._last_commit_ms = self._clock.monotonic_ms()
        self._purge(offsets)

    def _changelog_records(
        self,
        sealed: Sequence[tuple[Task, dict[str, dict[bytes, bytes | None]]]],
        acknowledged: dict[tuple[TaskId, str], int],
    ) -> list[Output]:
        """One record per changed key; the last of each store reports the offset it got."""
        changes: list[Output] = []
        for task, writes in sealed:
            changelogs = task.changelogs()
            for store, entries in writes.items():
                changelog = changelogs.get(store)
                if changelog is None:
                    continue
                topic, number = changelog
                # No timestamp: event times would be deleted by retention or refused; they are in the values.
                changes.extend([(topic, value, key, number, None, None, None) for key, value in entries.items()])
                last = changes[-1]
                report = _report(acknowledged, (task.id, store))
                changes[-1] = (last[0], last[1], last[2], last[3], report, None, None)
        return changes

    def _current_metadata(self) -> GroupMetadata:
        """Membership to commit under: that of the records, or a newer one of the same unbroken membership.

        A rebalance that left our partitions with us has raised the generation since. The client keeps its member
        id through such a change and can only come back from being dropped after ``on_lost`` ran, which voids what
        is uncommitted. Metadata of a client that is not a member is never sent: brokers do not check it.
        """
        fresh = self._consumer.group_metadata()
        known = self._metadata
        if known is None:
            return fresh
        if fresh.is_member and fresh.member_id == known.member_id:
            self._metadata = known = fresh
        return known

    def _purge(self, offsets: Mapping[TopicPartition, Position]) -> None:
        """Delete repartition records that are committed as processed."""
        now = self._clock.monotonic_ms()
        if not self._repartitions or now - self._last_purge_ms < self._settings.purge_interval_ms:
            return
        self._last_purge_ms = now
        before = {
            partition: input_.committed
            for task in self.assignment.running()
            for partition, input_ in task.inputs.items()
            if partition.topic in self._repartitions and input_.committed
        }
        if before:
            try:
                self._admin.delete_records(before)
            except Retriable as error:
                log.info("repartition topics are purged next time: %s", error)

    # -- things that go wrong ------------------------------------------------------------------------------

    def _rollback(self, reason: str, *, migrated: bool = False) -> None:
        """Nothing uncommitted ever was: drop it and start over from what Kafka has."""
        self._rollbacks += 1
        log.warning("rolling back%s: %s", " (partitions moved)" if migrated else "", reason)
        self._committer.abort()
        self._sent_since_commit = False
        self.assignment.reset()
        self._last_commit_ms = self._clock.monotonic_ms()

    def _rolled_back_by(self, failure: TransactionFailed) -> None:
        self._rollback(str(failure), migrated=failure.migrated)
        if failure.refused:
            raise ProcessingError(
                f"the broker does not accept a record of this application: {failure}. Nothing of its transaction was "
                f"kept. Send smaller records or raise the topic's max.message.bytes (and the producer's "
                f"message.max.bytes by --set), or see what the topic's settings say"
            ) from failure
        now = self._clock.monotonic_ms()
        if self._failing_since_ms is None:
            self._failing_since_ms = now
        elif now - self._failing_since_ms >= self._settings.broker_timeout_ms:
            raise BrokerUnavailable(
                f"no transaction has succeeded for {(now - self._failing_since_ms) // 1000} s: {failure}"
            ) from failure

    def _out_of_range(self, error: OutOfRange) -> None:
        task = None if error.partition is None else self.assignment.of_partition.get(error.partition)
        if task is None:
            raise TransactionFailed(f"a read position is not in the log: {error}")
        # What was processed is valid: commit it, then let the start-up checks say what happened.
        self.commit()
        self.assignment.reset_task(task)

    def _outage(self, reason: str) -> None:
        now = self._clock.monotonic_ms()
        if self._failing_since_ms is None:
            self._failing_since_ms = now
            self._outage_logged_ms = now - OUTAGE_LOG_MS
        waited_ms = now - self._failing_since_ms
        if waited_ms >= self._settings.broker_timeout_ms:
            raise BrokerUnavailable(
                f"no broker has answered for {waited_ms // 1000} s (limit: --broker-timeout): {reason}. Nothing is "
                f"lost; start again when the brokers are back"
            )
        if now - self._outage_logged_ms >= OUTAGE_LOG_MS:
            self._outage_logged_ms = now
            log.warning("no progress for %d s, still trying: %s", waited_ms // 1000, reason)

    # -- what the group says (called within consumer.poll and consumer.close) ------------------------------

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """See ``RebalanceListener``."""
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
                # Revoked, not lost: the group still holds these for us, so its present generation is ours.
                fresh = self._consumer.group_metadata()
                if fresh.is_member:
                    self._metadata = fresh
                self.commit()
            except TransactionFailed as failure:
                self._rolled_back_by(failure)
            except (TaskInterrupted, Retriable) as interruption:
                # There is no second try: whatever it was, these partitions go now.
                self._rollback(str(interruption))
        self._count_closed(partitions)
        self.assignment.revoked(partitions, keep_open=self._settings.eager and not self._closing)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """See ``RebalanceListener``. Nothing of these may be committed, so nothing of the transaction may."""
        self._guarded(lambda: self._lost(partitions))

    def _lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._count_closed(partitions)
        self.assignment.revoked(partitions, keep_open=False)
        self._metadata = None
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
                    self.commit()
                except TransactionFailed as failure:
                    self._rolled_back_by(failure)
                except (TaskInterrupted, Retriable) as interruption:
                    self._rollback(str(interruption))
            else:
                self._committer.abort()
                self.assignment.reset()
        finally:
            self._count_closed(list(self.assignment.of_partition))
            self.assignment.close()
            self._restorer.close()
            if self._started:
                self._consumer.close()
            self._committer.close()
        failure_in_callback, self._callback_failure = self._callback_failure, None
        if failure_in_callback is not None:
            raise failure_in_callback

    # -- numbers -------------------------------------------------------------------------------------------

    def _count_closed(self, partitions: Sequence[TopicPartition]) -> None:
        for task in {id(t): t for p in partitions if (t := self.assignment.of_partition.get(p))}.values():
            counters = task.counters
            self._closed_counters[0] += counters.processed
            self._closed_counters[1] += counters.failed
            self._closed_counters[2] += counters.dropped

    def status(self) -> WorkerStatus:
        """Numbers for people and programs; cheap, without a round trip."""
        tasks = list(self.assignment.tasks.values())
        counters = [task.counters for task in tasks]
        positions = {
            partition: input_.next_offset
            for task in tasks
            for partition, input_ in task.inputs.items()
            if input_.next_offset is not None
        }
        return WorkerStatus(
            processed=self._closed_counters[0] + sum(c.processed for c in counters),
            sent=self._sent,
            committed=self._committed,
            commits=self._commits,
            rollbacks=self._rollbacks,
            failed=self._closed_counters[1] + sum(c.failed for c in counters),
            dropped=self._closed_counters[2] + sum(c.dropped for c in counters),
            lag=sum(self._consumer.lag(positions).values())
            + sum(len(input_.buffer) for task in tasks for input_ in task.inputs.values()),
            tasks={str(task.id): task.phase.value for task in tasks},
            restore=self._restorer.progress(),
        )


def _report(
    acknowledged: dict[tuple[TaskId, str], int], store: tuple[TaskId, str]
) -> Callable[[Exception | None, int], None]:
    def delivered(error: Exception | None, offset: int) -> None:
        # A refused record fails the transaction by itself; its offset is of no use.
        if error is None:
            acknowledged[store] = offset

    return delivered


def _by_partition(messages: Sequence[Message]) -> list[tuple[TopicPartition, Sequence[Message]]]:
    """Runs of the same partition, in order."""
    runs: list[tuple[TopicPartition, Sequence[Message]]] = []
    begin = 0
    topic, partition = messages[0].topic(), messages[0].partition()
    for index, message in enumerate(messages):
        if message.partition() != partition or message.topic() != topic:
            runs.append((TopicPartition(topic, partition), messages[begin:index]))
            begin, topic, partition = index, message.topic(), message.partition()
    runs.append((TopicPartition(topic, partition), messages[begin:]))
    return runs
