"""The worker: one loop over poll, process, restore, punctuate and commit, for all tasks of a process.

The worker is deterministic and single-threaded: the same topology, the same answers of the ports and the same clock
give the same outputs. ``composition.py`` puts it together; ``commit/coordinator.py`` lists the steps of a commit, and
what a crash between two of them leaves.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from streamstate.engine.assign.assignment import Assignment
from streamstate.engine.assign.cluster_watch import ClusterWatch
from streamstate.engine.assign.global_tables import GlobalState
from streamstate.engine.assign.restore import Restorer
from streamstate.engine.commit.coordinator import CommitCoordinator
from streamstate.engine.commit.recovery import Recovery
from streamstate.engine.commit.transaction import Committer, TransactionFailed
from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.flow.outage import OutageMonitor
from streamstate.engine.flow.topic_limits import TopicLimits
from streamstate.engine.metrics import WorkerMetrics, WorkerStatus
from streamstate.engine.ports import Clock, Consumer, Fenced, GroupTaken, OutOfRange, Retriable, Unavailable
from streamstate.engine.processing import BatchProcessor
from streamstate.engine.rebalance import RebalanceHandler
from streamstate.engine.settings import WorkerSettings
from streamstate.errors import ConfigError
from streamstate.operators.base.failures import TaskInterrupted
from streamstate.state.backend import StateDamaged

log = logging.getLogger("streamstate.worker")

WAITING_POLL_MS = 10
# While a commit is under way: its end is noticed between two polls, and outputs wait for it.
COMMITTING_POLL_MS = 2


@dataclass(kw_only=True, eq=False, repr=False)
class Worker:
    """Runs the tasks of one process, tick by tick.

    Attributes:
        settings: of the worker.
        clock: time.
        consumer: the group's consumer.
        committer: makes work durable.
        assignment: the tasks.
        restorer: restores their stores from changelogs.
        global_state: the global tables.
        processor: processes polled records.
        batch_sizer: chooses how many records a poll takes, and ends a batch early.
        commits: commits, and rolls back.
        recovery: handles failures by a roll-back.
        rebalances: reacts to rebalances.
        limits: of topics.
        watch: notices changes of topics and of the group.
        outage_monitor: fails when brokers do not answer for too long.
        metrics: counts.
    """

    settings: WorkerSettings
    clock: Clock
    consumer: Consumer
    committer: Committer
    assignment: Assignment
    restorer: Restorer
    global_state: GlobalState
    processor: BatchProcessor
    batch_sizer: BatchSizer
    commits: CommitCoordinator
    recovery: Recovery
    rebalances: RebalanceHandler
    limits: TopicLimits
    watch: ClusterWatch
    outage_monitor: OutageMonitor
    metrics: WorkerMetrics
    _started: bool = field(default=False, init=False)

    # -- the loop ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Join the group."""
        self.consumer.subscribe(self.assignment.topics, self.rebalances)
        self._started = True

    def tick(self) -> None:
        """Run one turn of the loop: poll, process, restore, punctuate, and commit when it is time.

        Raises:
            StreamStateError: only the user can mend this; close the worker.
        """
        try:
            ready = self.committer.ready()
            self.limits.refresh(self.clock.now_ms())
            self.commits.proceed()
            self.watch.check()
            self.global_state.poll()
            self._poll(ready)
            if ready:
                if self.assignment.waiting and self.global_state.complete:
                    self.assignment.initialise()
                    self.assignment.share_cache()
                self._restore()
                self._punctuate()
                if self.commits.due():
                    self.commits.begin()
                if self.assignment.unsettled:
                    self.outage_monitor.outage(self.assignment.unsettled, expected=True)
                else:
                    self.outage_monitor.answered()
            else:
                self.outage_monitor.outage("no broker lets this process take its transactional id")
        except TransactionFailed as failure:
            self.recovery.roll_back_transaction(failure)
        except TaskInterrupted as interruption:
            # Polled records were not all processed: without a roll-back they would be skipped.
            self.recovery.roll_back(str(interruption))
            self.outage_monitor.outage(str(interruption))
        except StateDamaged as damage:
            self.recovery.replace_damaged_state(damage)
        except Unavailable as error:
            self.outage_monitor.outage(str(error))
        except Retriable as error:
            log.info("trying again: %s", error)

    def _poll(self, ready: bool) -> None:
        """Poll records and process them."""
        try:
            messages = self.consumer.poll(self.batch_sizer.size, self._poll_timeout_ms(ready))
        except OutOfRange as error:
            self.recovery.restart_out_of_range(error)
            return
        except GroupTaken as error:
            self.watch.join_refused(str(error))
            return
        except Fenced as error:
            raise ConfigError(
                f"another process has joined the group under this one's --instance-id, so this one must stop: {error}. "
                f"Give each process its own"
            ) from error
        self.rebalances.raise_failure()
        self.processor.process(messages)

    def _poll_timeout_ms(self, ready: bool) -> int:
        """How long a poll may wait for its first record."""
        if self.processor.buffered or self.restorer.busy:
            return 0
        if self.assignment.waiting or not ready:
            return WAITING_POLL_MS
        wait = COMMITTING_POLL_MS if self.commits.under_way else self.settings.poll_ms
        if self.commits.pending():
            wait = min(wait, self.commits.due_in_ms())
        now = self.clock.now_ms()
        for task in self.assignment.running():
            wait = min(wait, task.context.schedules.next_wall_ms - now)
        return max(0, wait)

    def _restore(self) -> None:
        """Restore a batch of changelog records; run the tasks whose stores are complete."""
        if not self.restorer.busy:
            return
        others_running = bool(self.assignment.running())
        try:
            complete = self.restorer.poll(0 if others_running else WAITING_POLL_MS)
        except OutOfRange as error:
            log.warning("a changelog was cut off while it was read, its store is rebuilt: %s", error)
            for task in self.restorer.tasks_reading(error.partition):
                self.assignment.reset_task(task)
            return
        for task in complete:
            self.assignment.run(task)

    def _punctuate(self) -> None:
        """Call the wall-clock punctuations that are due."""
        now = self.clock.now_ms()
        for task in self.assignment.running():
            if task.punctuate_wall_clock(now):
                self.commits.send(task)

    # -- commits -------------------------------------------------------------------------------------------

    def uncommitted(self) -> bool:
        """True while a commit is under way, or would have something to do."""
        return self.commits.under_way or self.commits.pending()

    def request_commit(self) -> None:
        """Commit within the next turn, whatever the interval says (Kafka Streams: ``ProcessorContext.commit``)."""
        self.commits.request()

    def commit(self) -> None:
        """Commit what all tasks have done, and wait for the end of the commit. Does nothing when there is nothing.

        Raises:
            TransactionFailed: nothing is committed, or the outcome is unknown.
            ProcessingError: a result that was held back for the commit failed.
        """
        self.commits.commit()

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, *, commit: bool = True) -> None:
        """Commit or drop uncommitted work, leave the group and release the state.

        Args:
            commit: false after an error, or to drop uncommitted work.
        """
        self.rebalances.closing = True
        try:
            if commit and self._started:
                with self.recovery.roll_back_on_failure():
                    self.commits.commit()
            else:
                self.commits.abort()
                self.assignment.reset()
        finally:
            self.metrics.closing(self.assignment.tasks.values())
            self.assignment.close()
            self.restorer.close()
            self.global_state.close()
            if self._started:
                self.consumer.close()
            self.committer.close()
            self.watch.close()
        self.rebalances.raise_failure()

    def interrupt(self) -> None:
        """End the batch after the record in hand, and process no more; ``close`` comes next. Safe from a signal
        handler or another thread."""
        self.batch_sizer.stop()

    def halt_if_slow(self, limit_ms: int) -> None:
        """End the batch after the record in hand if the batch has taken longer than ``limit_ms``: records that have
        become slow must not hold up commits and polls. Safe from another thread."""
        self.batch_sizer.halt_if_slow(limit_ms)

    # -- numbers -------------------------------------------------------------------------------------------

    def status(self) -> WorkerStatus:
        """Return numbers for people and programs, without a round trip."""
        return self.metrics.status(self.assignment.tasks.values(), self.consumer, self.restorer.progress())
