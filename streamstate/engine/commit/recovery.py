"""Roll back, and say when rolling back cannot help.

Kafka has everything that is committed. So each failure ends in the same way: the worker drops its uncommitted work and
starts over from the committed offsets. A crash within a roll-back leaves what a crash before it leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from streamstate.engine.assign.assignment import Assignment
from streamstate.engine.commit.coordinator import CommitCoordinator
from streamstate.engine.commit.transaction import TransactionFailed
from streamstate.engine.flow.outage import OutageMonitor
from streamstate.engine.ports import OutOfRange, Retriable
from streamstate.errors import ProcessingError
from streamstate.operators.base.failures import TaskInterrupted
from streamstate.state.backend import StateDamaged

log = logging.getLogger("streamstate.worker")


class Recovery:
    """Brings the worker back to what is committed.

    Args:
        assignment: the worker's tasks.
        commits: rolls back.
        outage_monitor: fails when no transaction succeeds for too long.
    """

    def __init__(self, assignment: Assignment, commits: CommitCoordinator, outage_monitor: OutageMonitor) -> None:
        self._assignment = assignment
        self._commits = commits
        self._outage_monitor = outage_monitor

    def roll_back(self, reason: str, *, migrated: bool = False) -> None:
        """Drop all uncommitted work and start over from what Kafka has.

        Args:
            reason: for the log.
            migrated: the group or another producer has taken partitions over.
        """
        log.warning("rolling back%s: %s", " (partitions moved)" if migrated else "", reason)
        self._commits.roll_back()

    def roll_back_transaction(self, failure: TransactionFailed) -> None:
        """Roll back because a transaction failed.

        Raises:
            ProcessingError: the broker refuses a record, so that processing it again cannot help.
            BrokerUnavailable: no transaction has succeeded for too long.
        """
        self.roll_back(str(failure), migrated=failure.migrated)
        if failure.refused:
            raise ProcessingError(
                f"the broker does not accept a record of this application: {failure}. Nothing of its transaction was "
                f"kept. If the topic does not exist: streamstate topics create TOPIC --partitions N. If the record is "
                f"too large: raise the topic's max.message.bytes and, by --set, the client's message.max.bytes"
            ) from failure
        self._outage_monitor.rollback(str(failure))

    def replace_damaged_state(self, damage: StateDamaged) -> None:
        """Drop local state that cannot be read; the task restores it from its changelogs."""
        # First, so that the roll-back does not read it once more.
        self._assignment.drop_state(damage.backend)
        self.roll_back(str(damage))

    @contextmanager
    def roll_back_on_failure(self) -> Iterator[None]:
        """Roll back when the block fails in a way that a roll-back mends. The block is not tried again.

        Raises:
            ProcessingError, BrokerUnavailable: see ``roll_back_transaction``.
        """
        try:
            yield
        except TransactionFailed as failure:
            self.roll_back_transaction(failure)
        except (TaskInterrupted, Retriable) as interruption:
            self.roll_back(str(interruption))
        except StateDamaged as damage:
            self.replace_damaged_state(damage)

    def restart_out_of_range(self, error: OutOfRange) -> None:
        """Commit, and start the task over whose read position is not in the log any more.

        Raises:
            TransactionFailed: no task is known for the position, or the commit failed.
        """
        task = None if error.partition is None else self._assignment.of_partition.get(error.partition)
        if task is None:
            raise TransactionFailed(f"a read position is not in the log: {error}")
        # What was processed is valid. The checks at the start of the task then say what happened to the log.
        self._commits.commit()
        self._assignment.reset_task(task)
