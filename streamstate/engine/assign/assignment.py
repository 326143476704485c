"""The worker's tasks: from assigned over restoring to running, and back.

Callbacks of the group only change which tasks there are. ``initialise`` talks to brokers and disks, later, in this
order: the starts of the logs, the committed input offsets, the ends of the changelogs, the restore. Offsets after ends
could pair new offsets with an old target. Starts after offsets could report records as lost that a new owner has
processed and deleted meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from streamstate.engine.assign.restore import Restoration, Restorer, starting_point
from streamstate.engine.assign.start_checks import (
    recreated_changelog,
    refuse_behind,
    refuse_empty_changelog,
    resolve_committed_offset,
)
from streamstate.engine.assign.start_offsets import StartOffsets, applied_offsets, start_offset, warn_foreign_offset
from streamstate.engine.ports import Admin, Consumer, Retriable, TopicPartition, Unavailable
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.offset_metadata import changelog_marks, changelog_recreated, is_ours, stream_time_of
from streamstate.engine.task.store_marks import StoreMark
from streamstate.engine.task.task import Phase, Task, TaskId
from streamstate.graph.names import repartition_topic
from streamstate.graph.node import Graph, SubTopology
from streamstate.operators.base.failures import TaskInterrupted
from streamstate.state.backend import Backend

log = logging.getLogger("streamstate.assignment")

COMMITTED_MS = 300

# Opens a task's state: (task id, store names, may fall back to a fresh directory). Raises Retriable while another
# owner still holds it.
OpenBackend = Callable[[TaskId, Sequence[str], bool], Backend]
# Called with the number of stores of each task before a task is opened. Raises TooManyOpenFiles when the machine cannot
# hold them.
CheckCapacity = Callable[[Sequence[int]], None]


class Assignment:
    """Holds the tasks of a worker, and brings them from assigned to running.

    Args:
        graph: the topology.
        settings: of the worker.
        partition_counts: partitions of every topic the topology reads, by real name.
        consumer, admin: return offsets.
        restorer: restores stores that are behind their changelogs.
        open_backend: see ``OpenBackend``.
        check_capacity: see ``CheckCapacity``.
        make_task: makes a task of a sub-topology.
        monotonic_ms: clock.
        recount: reads the partition counts again and refuses those that do not fit.
        known_marks: see ``Task``.
    """

    def __init__(
        self,
        graph: Graph,
        settings: WorkerSettings,
        partition_counts: Mapping[str, int],
        consumer: Consumer,
        admin: Admin,
        restorer: Restorer,
        open_backend: OpenBackend,
        check_capacity: CheckCapacity,
        make_task: Callable[[TaskId, SubTopology], Task],
        monotonic_ms: Callable[[], int],
        recount: Callable[[], Mapping[str, int]],
        known_marks: Mapping[str, tuple[StoreMark, ...]] | None = None,
    ) -> None:
        self._settings = settings
        self._counts = dict(partition_counts)
        self._recount = recount
        self._known_marks = known_marks
        self._consumer = consumer
        self._start_offsets = StartOffsets(consumer, self._counts)
        self._admin = admin
        self._restorer = restorer
        self._open_backend = open_backend
        self._check_capacity = check_capacity
        self._make_task = make_task
        self._monotonic_ms = monotonic_ms
        self._topics: dict[SubTopology, tuple[str, ...]] = {}
        self._reader: dict[str, SubTopology] = {}
        for part in graph.subtopologies:
            topics = list(part.source_topics)
            topics += [repartition_topic(settings.application_id, name) for name in part.repartition_sources]
            self._topics[part] = tuple(topics)
            self._reader.update(dict.fromkeys(topics, part))
        # Why committed offsets are not known yet, while they are not.
        self.unsettled = ""
        self.tasks: dict[TaskId, Task] = {}
        self.of_partition: dict[TopicPartition, Task] = {}

    @property
    def topics(self) -> list[str]:
        """All topics that the topology reads."""
        return sorted(self._reader)

    # -- what the group says -------------------------------------------------------------------------------

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Add partitions to their tasks. They stay paused until the task runs."""
        for partition in partitions:
            part = self._reader[partition.topic]
            task_id = TaskId(part.name, partition.partition)
            task = self.tasks.get(task_id)
            if task is None:
                task = self.tasks[task_id] = self._make_task(task_id, part)
            if task.phase is Phase.SUSPENDED:
                task.phase = Phase.CREATED
            if partition in task.inputs:
                continue  # told twice
            task.add_input(partition)
            self.of_partition[partition] = task
        self._close([task for task in self.tasks.values() if task.phase is Phase.SUSPENDED])

    def revoked(self, partitions: Iterable[TopicPartition], *, keep_open: bool) -> None:
        """Remove partitions, after their commit.

        Args:
            partitions: that go.
            keep_open: they may come back within this rebalance, so keep their state open.
        """
        gone, closing, waiting = set(partitions), [], []
        for task in self.tasks_of(partitions):
            self._restorer.remove(task)
            kept = [partition for partition in task.inputs if partition not in gone]
            for partition in task.inputs:
                self.of_partition.pop(partition, None)
            if keep_open and not kept and task.backend is not None:
                task.suspend()
                continue
            closing.append(task)
            waiting += kept
        self._close(closing)
        if waiting:
            # Their tasks lost one of several inputs: the other inputs wait, paused, until it comes back.
            self._consumer.pause(waiting)
            self.assigned(waiting)

    def tasks_of(self, partitions: Iterable[TopicPartition]) -> list[Task]:
        """Return the tasks that hold any of these partitions."""
        return list({id(task): task for p in partitions if (task := self.of_partition.get(p))}.values())

    def _close(self, tasks: Iterable[Task]) -> None:
        """Close tasks together: all begin before the first is waited for, because each waits for the disk."""
        closing = list(tasks)
        for task in closing:
            task.begin_close()
        for task in closing:
            task.close()
            self.tasks.pop(task.id, None)

    def reset(self) -> None:
        """Roll all tasks back to what Kafka has."""
        self._close([task for task in self.tasks.values() if task.phase is Phase.SUSPENDED])
        for task in self.tasks.values():
            self.reset_task(task)

    def reset_task(self, task: Task) -> None:
        """Roll back one task that has nothing uncommitted in a transaction."""
        self._restorer.remove(task)
        self._consumer.pause(task.inputs)
        task.reset()

    def drop_state(self, backend: object) -> None:
        """Close a damaged backend: its task opens another one, and restores it."""
        for task in self.tasks.values():
            if task.backend is backend:
                task.drop_state()

    def close(self) -> None:
        """Release every task."""
        for task in self.tasks.values():
            self._restorer.remove(task)
        self._close(self.tasks.values())
        self.of_partition.clear()

    # -- from assigned to running --------------------------------------------------------------------------

    def running(self) -> list[Task]:
        """Return the tasks that process."""
        return [task for task in self.tasks.values() if task.phase is Phase.RUNNING]

    @property
    def waiting(self) -> bool:
        """True while a task waits for ``initialise``."""
        return any(task.phase is Phase.CREATED for task in self.tasks.values())

    def share_cache(self) -> None:
        """Give every store the same part of the cache's budget."""
        stores = [store for task in self.tasks.values() for store in task.stores.values()]
        for store in stores:
            store.cache_bytes = self._settings.cache_bytes // len(stores)

    def _complete(self, task: Task) -> bool:
        partition = task.id.partition
        return all(
            TopicPartition(topic, partition) in task.inputs
            for topic in self._topics[task.subtopology]
            if partition < self._counts.get(topic, 0)
        )

    def initialise(self) -> None:
        """Bring waiting tasks to restoring or to running, as far as that is possible now.

        Raises:
            TooManyOpenFiles: the machine cannot hold so many tasks.
            OffsetOutOfRange: a committed offset is not in the log any more.
            TaskCorrupted: see ``starting_point``.
            TopologyError: an input has got partitions that do not fit the state there is.
            Unavailable: no broker answers.
        """
        if any(p.partition >= self._counts.get(p.topic, 0) for p in self.of_partition):
            self._counts.update(self._recount())
        created = [t for t in self.tasks.values() if t.phase is Phase.CREATED and self._complete(t)]
        if any(task.backend is None for task in created):
            self._check_capacity([len(task.subtopology.stores) for task in self.tasks.values()])
        ready = [task for task in created if task.backend is not None or self._open(task)]
        if not ready:
            self.unsettled = ""
            return
        partitions = [partition for task in ready for partition in task.inputs]
        changelogs = [log for task in ready for log in task.restored_from().values() if log not in task.inputs]
        starts = self._admin.log_starts([*partitions, *changelogs])
        try:
            committed = self._consumer.committed(partitions, COMMITTED_MS)
            inputs = [input_ for task in ready for input_ in task.inputs.values()]
            self._start_offsets.load_partitions_at_start(inputs, committed, COMMITTED_MS)
        except Retriable as error:
            log.debug("committed offsets are not settled yet: %s", error)
            self.unsettled = (
                f"committed offsets are not settled: {error}. A transaction with offsets of this group has not ended. "
                f"If that lasts longer than the transaction's time-out, the broker has lost its end: "
                f"'kafka-transactions.sh find-hanging' names it, and 'abort' ends it"
            )
            return
        self.unsettled = ""
        ends = self._admin.log_ends([*partitions, *changelogs])
        for partition in (*partitions, *changelogs):
            if partition not in ends or partition not in starts:
                # Perhaps only not known everywhere yet; if it stays away, the outage's limit ends the worker.
                raise Unavailable(
                    f"topic {partition.topic!r}, partition {partition.partition}, does not exist. If it was deleted, "
                    f"stop the application and start over from the input with 'streamstate reset'"
                )
        logs = {log.topic for task in ready for log in (*task.inputs, *task.restored_from().values())}
        topic_ids = {name: info.topic_id for name, info in self._admin.topics(logs).items()}
        for task in ready:
            applied, anew = applied_offsets(task, topic_ids, committed)
            metadata = [position.metadata for p in task.inputs if (position := committed.get(p)) is not None]
            for partition, input_ in task.inputs.items():
                position = committed.get(partition)
                if position is None:
                    input_.committed = None
                    # Decided once, so that "latest" does not move on with a roll-back.
                    if input_.origin is None or partition.topic in anew:
                        input_.origin = start_offset(input_, starts[partition], ends[partition])
                    input_.next_offset = min(max(input_.origin, starts[partition]), ends[partition])
                    refuse_behind(task, partition, None, applied.get(partition))
                else:
                    input_.committed = position.offset
                    if not is_ours(position.metadata):
                        warn_foreign_offset(partition, position.offset, applied.get(partition))
                    if starts[partition] <= position.offset <= ends[partition]:
                        refuse_behind(task, partition, position.offset, applied.get(partition))
                    input_.next_offset = resolve_committed_offset(
                        partition, position.offset, starts[partition], ends[partition], self._settings.out_of_range
                    )
                    known = stream_time_of(position.metadata)
                    task.context.stream_time = max(task.context.stream_time, known)
            self._begin_restore(task, starts, ends, topic_ids, metadata)

    def _open(self, task: Task) -> bool:
        now = self._monotonic_ms()
        if task.lock_wait_since_ms is None:
            task.lock_wait_since_ms = now
        waited = now - task.lock_wait_since_ms
        try:
            backend = self._open_backend(task.id, task.subtopology.stores, waited >= self._settings.lock_wait_ms)
        except Retriable as error:
            log.debug("task %s: %s", task.id, error)
            return False
        task.lock_wait_since_ms = None
        try:
            task.open(backend)
        except TaskInterrupted as error:
            raise Unavailable(str(error)) from error
        return True

    def _begin_restore(
        self,
        task: Task,
        starts: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        topic_ids: Mapping[str, str],
        metadata: Sequence[str],
    ) -> None:
        assert task.backend is not None, "restoring before it was opened"
        stored = task.backend.positions()
        behind: dict[TopicPartition, Restoration] = {}
        sources = task.source_logs()
        for store, changelog in task.restored_from().items():
            source = sources.get(store)
            target = ends[changelog]
            if source is not None:
                # Restore the rows of processed records only: later records are processed as changes.
                processed = task.inputs[changelog].next_offset
                assert processed is not None, "restoring before offsets are known"
                target = processed
                mismatches = task.differences_of(store)
                if mismatches and store in stored:
                    log.warning(
                        "task %s: store %r is made anew from its topic: %s", task.id, store, "; ".join(mismatches)
                    )
                    task.backend.clear(store)
                    del stored[store]
            else:
                refuse_empty_changelog(task, store, starts, target, self._known_marks)
            topic_id = topic_ids.get(changelog.topic, "")
            start = starting_point(
                task, store, changelog, stored.get(store), starts[changelog], target, topic_id, source is not None
            )
            if source is None and any(changelog_recreated(note, store, topic_id) for note in metadata):
                raise recreated_changelog(task, store, changelog, self._settings.application_id)
            if start < target:
                rebuild = None if source is None else source.rebuild
                behind[changelog] = Restoration(task, store, start, target, start, rebuild=rebuild)
        of_store = {store: topic_ids.get(changelog.topic, "") for store, changelog in task.changelogs().items()}
        task.changelog_marks = changelog_marks(of_store)
        if behind:
            task.phase = Phase.RESTORING
            self._restorer.add(behind)
        else:
            self.run(task)

    def run(self, task: Task) -> None:
        """Run a task whose state is complete: start its inputs, and its processors."""
        offsets = {partition: input_.next_offset for partition, input_ in task.inputs.items()}
        try:
            self._consumer.start({p: offset for p, offset in offsets.items() if offset is not None})
        except Retriable as error:
            log.debug("task %s: its inputs cannot be started yet: %s", task.id, error)
            task.phase = Phase.CREATED
            return
        task.run()
