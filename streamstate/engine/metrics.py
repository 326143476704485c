"""Count what a worker does, for people and programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamstate.engine.assign.restore import RestoreProgress
from streamstate.engine.ports import Consumer
from streamstate.engine.task.task import Task


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The worker's counts and its progress.

    Attributes:
        processed: records processed, rolled-back ones included.
        sent: records sent to topics, changelogs not included.
        committed: records that are committed.
        commits, rollbacks: transactions.
        failed: records that failed under ``continue`` or ``dead_letter``.
        dropped: records that operators dropped, such as those without a key or later than grace.
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


@dataclass(slots=True)
class WorkerMetrics:
    """Counts what a worker does. Tasks count for themselves until they are closed."""

    sent: int = 0
    committed: int = 0
    commits: int = 0
    rollbacks: int = 0
    processed_by_closed: int = 0
    failed_in_closed: int = 0
    dropped_by_closed: int = 0

    def closing(self, tasks: Iterable[Task]) -> None:
        """Keep the counts of tasks that are about to close."""
        for task in tasks:
            counters = task.counters
            self.processed_by_closed += counters.processed
            self.failed_in_closed += counters.failed
            self.dropped_by_closed += counters.dropped

    def status(self, tasks: Iterable[Task], consumer: Consumer, restore: RestoreProgress) -> WorkerStatus:
        """Return the worker's counts and progress, without a round trip."""
        held = list(tasks)
        counters = [task.counters for task in held]
        inputs = {partition: input_ for task in held for partition, input_ in task.inputs.items()}
        positions = {p: input_.next_offset for p, input_ in inputs.items() if input_.next_offset is not None}
        behind = sum(consumer.lag(positions).values()) + sum(len(input_.buffer) for input_ in inputs.values())
        return WorkerStatus(
            processed=self.processed_by_closed + sum(c.processed for c in counters),
            sent=self.sent,
            committed=self.committed,
            commits=self.commits,
            rollbacks=self.rollbacks,
            failed=self.failed_in_closed + sum(c.failed for c in counters),
            dropped=self.dropped_by_closed + sum(c.dropped for c in counters),
            lag=behind,
            tasks={str(task.id): task.phase.value for task in held},
            restore=restore,
        )
