"""Restore stores from their changelogs.

A store is complete when the consumer's position has reached a target: the end of the changelog under read_uncommitted,
read after the committed input offsets. Records are read read_committed; the position also passes transaction markers
and compacted records. An empty poll means nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from streamstate.engine.flow.batches import by_partition
from streamstate.engine.ports import Message, RestoreConsumer, TopicPartition
from streamstate.engine.task.store_marks import MARK_KEY, mark_fact
from streamstate.engine.task.task import Task
from streamstate.errors import SerdeError, TaskCorrupted
from streamstate.operators.base.compilation import Rebuild

log = logging.getLogger("streamstate.restore")


@dataclass(slots=True)
class Restoration:
    """The restore of one store.

    Attributes:
        task: that has the store.
        store: its name.
        start: position from which it is replayed.
        target: position at which it is complete.
        position: present position.
        records: replayed so far.
        rebuild: makes entries of records, when it is replayed from an input topic: one that others write to, so that
            nothing from the target on may be taken; None: records are entries.
    """

    task: Task
    store: str
    start: int
    target: int
    position: int
    records: int = 0
    rebuild: Rebuild | None = None


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """The progress of all restores of a worker.

    Attributes:
        stores: number of stores that are not complete.
        records: replayed since the worker started.
        remaining: offsets that are left.
        eta_ms: estimate of the time left, None while there is no estimate.
    """

    stores: int
    records: int
    remaining: int
    eta_ms: int | None


def starting_point(
    task: Task,
    store: str,
    changelog: TopicPartition,
    stored: int | None,
    log_start: int,
    log_end: int,
    topic_id: str,
    source: bool = False,
) -> int:
    """Return the position from which a store is replayed; clear it when only a full replay is right.

    Args:
        stored: position that local state reflects; None when there is none.
        log_start, log_end: of the changelog.
        topic_id: of the changelog as it exists now; empty when unknown.
        source: true when the changelog is an input topic; then ``log_end`` is the offset up to which it is processed.

    Raises:
        TaskCorrupted: the changelog was deleted or recreated under existing state.
    """
    assert task.backend is not None, "restoring before it was opened"
    fact = f"topic_id:{store}"
    known = task.backend.facts().get(fact, "")
    recreated = bool(known and topic_id and known != topic_id)
    if source and stored is not None and (recreated or stored > log_end):
        # The offsets decide what is processed, and the whole of the rows is in the topic.
        log.warning(
            "task %s: store %r reflects offset %d of topic %r, which %s: it is rebuilt",
            task.id,
            store,
            stored,
            changelog.topic,
            "was created again" if recreated else f"is processed up to {log_end}",
        )
        stored = None
    if stored is not None and (recreated or stored > log_end):
        raise TaskCorrupted(
            f"task {task.id}: store {store!r} reflects offset {stored} of changelog {changelog.topic!r}, partition "
            f"{changelog.partition}, which ends at {log_end}"
            + (" and has another topic id" if recreated else "")
            + ": the topic was deleted and created again, or lost records. Local state is the only copy left. To "
            "start over from the input, run 'streamstate reset' for this application"
        )
    if stored is None or stored < log_start:
        # Deletions between the stored position and the log's start are gone: only a full replay is right.
        task.backend.clear(store)
        stored = log_start
    if topic_id and known != topic_id:
        # Behind the clearing: entries of the topic before must not pass for those of this one.
        task.backend.note({fact: topic_id})
    return stored


class Restorer:
    """Replays changelogs of the tasks that need it, interleaved, batch by batch.

    Args:
        consumer: makes the restore consumer when the first task needs one.
        batch: most records per poll.
        monotonic_ms: for the estimate of the time left.
    """

    def __init__(self, consumer: Callable[[], RestoreConsumer], batch: int, monotonic_ms: Callable[[], int]) -> None:
        self._make_consumer = consumer
        self._consumer: RestoreConsumer | None = None
        self._batch = batch
        self._monotonic_ms = monotonic_ms
        self._active: dict[TopicPartition, Restoration] = {}
        # All that were ever read: the client may still return records of one that is not read any more.
        self._topics: set[str] = set()
        self._since_ms: int | None = None
        self._since_records = 0
        self.records = 0

    @property
    def busy(self) -> bool:
        """True while something is being restored."""
        return bool(self._active)

    def add(self, restorations: Mapping[TopicPartition, Restoration]) -> None:
        """Start more restores."""
        if not self._active:
            self._since_ms, self._since_records = self._monotonic_ms(), self.records
        for item in restorations.values():
            log.info(
                "task %s: restoring store %r from offset %d to %d", item.task.id, item.store, item.start, item.target
            )
        self._active.update(restorations)
        self._topics.update(changelog.topic for changelog in restorations)
        self._reassign()

    def remove(self, task: Task) -> None:
        """Stop the restores of a task. What was restored stays in its backend."""
        gone = [changelog for changelog, restoration in self._active.items() if restoration.task is task]
        for changelog in gone:
            del self._active[changelog]
        if gone:
            self._reassign()

    def tasks_reading(self, changelog: TopicPartition | None) -> list[Task]:
        """Return the tasks that are restored from a changelog; None: from any changelog."""
        found = [item.task for partition, item in self._active.items() if changelog in (None, partition)]
        return list({id(task): task for task in found}.values())

    def _reassign(self) -> None:
        if self._consumer is None:
            self._consumer = self._make_consumer()
        self._consumer.assign({changelog: item.position for changelog, item in self._active.items()})

    def poll(self, timeout_ms: int) -> list[Task]:
        """Replay one batch; return the tasks whose stores are all complete now."""
        assert self._consumer is not None, "polled without anything to restore"
        messages = self._consumer.poll(self._batch, timeout_ms)
        for changelog, group in by_partition(messages, len(self._topics) == 1):
            restoration = self._active.get(changelog)
            if restoration is not None:
                self._apply(restoration, group)
        complete = []
        for changelog, position in self._consumer.positions().items():
            restoration = self._active.get(changelog)
            if restoration is None or position < restoration.target:
                continue
            restoration.position = max(position, restoration.position)
            if restoration.rebuild is not None:
                restoration.position = restoration.target
            assert restoration.task.backend is not None, "restoring a closed task"
            restoration.task.backend.restore(restoration.store, {}, restoration.position, complete=True)
            log.info(
                "task %s: store %r is restored: %d records, offsets %d to %d",
                restoration.task.id,
                restoration.store,
                restoration.records,
                restoration.start,
                restoration.target,
            )
            complete.append(changelog)
        if not complete:
            return []
        tasks = {self._active.pop(changelog).task: None for changelog in complete}
        self._reassign()
        waiting = {id(restoration.task) for restoration in self._active.values()}
        return [task for task in tasks if id(task) not in waiting]

    def _apply(self, restoration: Restoration, messages: Sequence[Message]) -> None:
        fresh = messages
        if fresh[0].offset() < restoration.position:
            fresh = [message for message in fresh if message.offset() >= restoration.position]
        if restoration.rebuild is not None:
            fresh = [message for message in fresh if message.offset() < restoration.target]
        if not fresh:
            return
        entries = len(fresh)
        if restoration.rebuild is None:
            records = {key: message.value() for message in fresh if (key := message.key()) is not None}
            mark = records.pop(MARK_KEY, None)
            if mark is not None:
                # Before the entries, which it explains; it is looked at when all of them are there.
                assert restoration.task.backend is not None, "restoring a closed task"
                restoration.task.backend.note({mark_fact(restoration.store): mark.decode()})
                entries = sum(message.key() != MARK_KEY for message in fresh)
        else:
            records = _rebuilt(restoration.rebuild, restoration, fresh)
        restoration.position = fresh[-1].offset() + 1
        assert restoration.task.backend is not None, "restoring a closed task"
        restoration.task.backend.restore(restoration.store, records, restoration.position)
        restoration.records += entries
        self.records += entries

    def progress(self) -> RestoreProgress:
        """Return the progress of all restores."""
        remaining = sum(max(0, item.target - item.position) for item in self._active.values())
        eta_ms = None
        if self._active and self._since_ms is not None:
            elapsed = self._monotonic_ms() - self._since_ms
            done = self.records - self._since_records
            if done and elapsed > 0:
                eta_ms = remaining * elapsed // done
        return RestoreProgress(len(self._active), self.records, remaining, eta_ms)

    def close(self) -> None:
        """Stop reading."""
        self._active.clear()
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def _rebuilt(rebuild: Rebuild, restoration: Restoration, messages: Sequence[Message]) -> dict[bytes, bytes | None]:
    records = {}
    for message in messages:
        key = message.key()
        if key is None:
            continue
        try:
            made = rebuild(key, message.value(), message.timestamp()[1])
        except Exception as error:
            raise SerdeError(
                f"task {restoration.task.id}: store {restoration.store!r} cannot be restored from topic "
                f"{message.topic()!r}, partition {message.partition()}, offset {message.offset()}: {error!r}. This "
                f"record was read before with other serdes or another timestamp=; go back to them, or start over with "
                f"'streamstate reset'"
            ) from error
        if made is not None:
            records[made[0]] = made[1]
    return records
