"""Commit the work of all tasks beside the loop, and roll back.

At most one commit is under way. Meanwhile the worker goes on: what tasks stage lies above the sealed writes, and their
outputs wait here until the commit has ended. If it fails, both are void. Whatever takes a task away waits for the end
of the commit under way first.

The steps of a commit, and what a crash before the next step leaves:

1. held-back results are sent            nothing committed: the broker aborts, the records are processed again
2. changelog records are sent            the same
3. input offsets join the transaction    the same
4. everything is acknowledged            the same
5. the transaction commits               if unknown: repeated, or settled by a new producer before anything is read
6. stores take the same writes           stores are behind their changelogs: restore replays exactly these
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamstate.engine.assign.assignment import Assignment
from streamstate.engine.assign.metadata_topic import mark_records
from streamstate.engine.commit.changelog import Acknowledged, Writes, changelog_records, positions_of
from streamstate.engine.commit.group_membership import GroupMembership
from streamstate.engine.commit.transaction import CALL_MS, Committer
from streamstate.engine.metrics import WorkerMetrics
from streamstate.engine.ports import Clock, Output, Position, TopicPartition
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.task import Task

log = logging.getLogger("streamstate.worker")

# Outputs that wait for the commit under way before the worker waits for it too.
WAITING_BYTES = 16 << 20
# What one waiting output costs beside its key and value.
OUTPUT_BYTES = 200
# Of so many waiting outputs the size of one is taken. A prime: records have a few outputs each, and it must not always
# be the same of them.
SAMPLED = 17


@dataclass(frozen=True, slots=True)
class Sealed:
    """The contents of the commit under way.

    Attributes:
        writes: of each task's stores.
        offsets: of the inputs.
        acknowledged: offsets that the changelog records got.
        records: number of records that each task has processed.
    """

    writes: list[tuple[Task, Writes]]
    offsets: dict[TopicPartition, Position]
    acknowledged: Acknowledged
    records: list[int]


class CommitCoordinator:
    """Begins, finishes and aborts the commits of a worker.

    Args:
        settings: of the worker.
        assignment: its tasks.
        committer: makes work durable.
        membership: group membership under which offsets are sent.
        clock: measures the interval.
        metrics: counts.
        succeeded: called after each commit with its tasks.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        assignment: Assignment,
        committer: Committer,
        membership: GroupMembership,
        clock: Clock,
        metrics: WorkerMetrics,
        succeeded: Callable[[Sequence[Task]], None],
    ) -> None:
        self._settings = settings
        self._assignment = assignment
        self._committer = committer
        self._membership = membership
        self._clock = clock
        self._metrics = metrics
        self._succeeded = succeeded
        self._under_way: Sealed | None = None
        self._waiting: list[Output] = []
        self._waiting_bytes = 0
        self._sent = False
        self._requested = False
        self._last_ms = clock.monotonic_ms()

    # -- outputs -------------------------------------------------------------------------------------------

    def send(self, task: Task) -> None:
        """Take the outputs of a task: send them, or keep them while a commit is under way."""
        outputs = task.context.outputs
        if not outputs:
            return
        self._metrics.sent += len(outputs)
        self._sent = True
        if self._under_way is None:
            self._committer.send(outputs)
        else:
            self._waiting.extend(outputs)
            # Estimate from a sample: this runs for each batch while a commit is under way.
            some = outputs[::SAMPLED]
            sampled_bytes = sum(len(output[1] or b"") + len(output[2] or b"") for output in some)
            self._waiting_bytes += (OUTPUT_BYTES + sampled_bytes // len(some)) * len(outputs)
        outputs.clear()
        if self._waiting_bytes >= WAITING_BYTES:
            self.settle()

    # -- committing ----------------------------------------------------------------------------------------

    @property
    def under_way(self) -> bool:
        """True while a commit has begun and not ended."""
        return self._under_way is not None

    def pending(self) -> bool:
        """Return true when there is work that is part of no commit yet."""
        if self._sent:
            return True
        begun = self._under_way.offsets if self._under_way is not None else {}
        for task in self._assignment.running():
            for partition, input_ in task.inputs.items():
                position = begun.get(partition)
                if input_.next_offset != (input_.committed if position is None else position.offset):
                    return True
            if task.pending or any(store.staged for store in task.stores.values()):
                return True
        return False

    def request(self) -> None:
        """Make a commit due now."""
        self._requested = True

    def due_in_ms(self) -> int:
        """Return the milliseconds until the interval is over; 0 or less when it is."""
        return 0 if self._requested else self._last_ms + self._settings.commit_interval_ms - self._clock.monotonic_ms()

    def due(self) -> bool:
        """Return true when the interval is over, a commit was requested, or uncommitted state takes too much memory."""
        if self.due_in_ms() <= 0:
            return True
        return sum(task.staged_bytes for task in self._assignment.running()) >= self._settings.staging_bytes

    def begin(self, timeout_ms: int | None = None) -> None:
        """Begin to commit the work of all tasks; does nothing when there is none.

        Args:
            timeout_ms: how long to try; None: ``commit_timeout_ms``.

        Raises:
            TransactionFailed: the commit before this one failed, or this one at once.
            ProcessingError: a held-back result failed.
        """
        self._requested = False
        began_ms = self._clock.monotonic_ms()
        self.settle(timeout_ms)
        self._last_ms = self._clock.monotonic_ms()
        if not self.pending():
            return
        if timeout_ms is None:
            timeout_ms = self._settings.commit_timeout_ms
        # One deadline over both commits: a rebalance waits for them.
        timeout_ms = max(1, timeout_ms - (self._last_ms - began_ms))
        # First, because it may fail: sealed writes cannot be sealed again.
        metadata = self._membership.metadata_to_commit()
        tasks = self._assignment.running()
        for task in tasks:
            for _ in task.flush():
                self.send(task)
            self.send(task)
        writes = [(task, task.seal()) for task in tasks]
        acknowledged: Acknowledged = {}
        for changes in changelog_records(writes, acknowledged):
            self._committer.send(changes)
        marks = mark_records(self._settings.application_id, writes)
        if marks:
            self._committer.send(marks)
        offsets: dict[TopicPartition, Position] = {}
        for task in tasks:
            offsets.update(task.offsets())
        if not offsets:
            # Punctuations only. The broker checks the generation only together with offsets: send the present ones.
            for task in tasks:
                offsets.update(task.offsets(unmoved=True))
        self._sent = False
        self._under_way = Sealed(writes, offsets, acknowledged, [task.uncommitted for task in tasks])
        self._committer.begin_commit(offsets, metadata, timeout_ms)
        self.proceed()

    def proceed(self) -> None:
        """Apply the commit under way to the stores if it has ended.

        Raises:
            TransactionFailed: it failed.
        """
        if self._under_way is not None and self._committer.settled(0):
            self._finish(self._under_way)

    def settle(self, timeout_ms: int | None = None) -> None:
        """Wait for the end of the commit under way, and apply it.

        Args:
            timeout_ms: gives the commit up after this time, when its own time-out is later.

        Raises:
            TransactionFailed: it failed.
        """
        if self._under_way is None:
            return
        if timeout_ms is not None:
            self._committer.shorten_deadline(timeout_ms)
        while not self._committer.settled(CALL_MS):
            pass
        self._finish(self._under_way)

    def commit(self, timeout_ms: int | None = None) -> None:
        """Begin a commit and wait for its end; see ``begin``."""
        self.begin(timeout_ms)
        self.settle()

    def _finish(self, sealed: Sealed) -> None:
        # Kafka is the truth. Crashing here leaves stores behind their changelogs, which restore repairs; the
        # reverse order would leave them ahead.
        for (task, writes), records in zip(sealed.writes, sealed.records, strict=True):
            advanced = {p: sealed.offsets[p] for p in task.inputs if p in sealed.offsets}
            self._metrics.committed += records
            task.committed(writes, positions_of(task, writes, sealed.acknowledged), advanced, records)
        self._under_way = None
        self._metrics.commits += 1
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting:
            self._committer.send(waiting)
        self._succeeded([task for task, _ in sealed.writes])

    # -- rolling back --------------------------------------------------------------------------------------

    def roll_back(self) -> None:
        """Drop all uncommitted work and start over from what Kafka has."""
        self._metrics.rollbacks += 1
        self.abort()
        self._membership.forget()
        self._assignment.reset()
        self._last_ms = self._clock.monotonic_ms()

    def abort(self) -> None:
        """Abort: drop outputs that are not committed. A commit under way may still succeed, so only the committed
        offsets that the broker returns count from here on."""
        self._committer.abort()
        self._under_way = None
        self._waiting.clear()
        self._waiting_bytes = 0
        self._sent = False
