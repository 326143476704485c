"""React to rebalances: hold new partitions, commit before partitions go, roll back when they were lost.

The consumer calls this from within ``poll`` and ``close``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamstate.engine.assign.assignment import Assignment
from streamstate.engine.assign.cluster_watch import ClusterWatch
from streamstate.engine.commit.coordinator import CommitCoordinator
from streamstate.engine.commit.group_membership import GroupMembership
from streamstate.engine.commit.recovery import Recovery
from streamstate.engine.metrics import WorkerMetrics
from streamstate.engine.ports import TopicPartition
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.task import Phase


class RebalanceHandler:
    """Implements ``RebalanceListener`` for a worker.

    Args:
        settings: of the worker.
        assignment: its tasks.
        commits: commits before partitions go.
        membership: under which these commits are sent.
        watch: is told that the group has let this process in.
        recovery: rolls back.
        metrics: keeps the numbers of tasks that go.

    Attributes:
        assignment: see above.
        closing: true when no partition comes back, so that no state is kept open.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        assignment: Assignment,
        commits: CommitCoordinator,
        membership: GroupMembership,
        watch: ClusterWatch,
        recovery: Recovery,
        metrics: WorkerMetrics,
    ) -> None:
        self.assignment = assignment
        self.closing = False
        self._settings = settings
        self._commits = commits
        self._membership = membership
        self._watch = watch
        self._recovery = recovery
        self._metrics = metrics
        self._failure: BaseException | None = None

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """See ``RebalanceListener``."""
        self._membership.assigned()
        self._watch.joined()
        self._keep_failure(lambda: self.assignment.assigned(partitions))

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """See ``RebalanceListener``. Commits first: this is the last moment for these partitions."""
        self._keep_failure(lambda: self._revoked(partitions))

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """See ``RebalanceListener``. Rolls back: the transaction holds work of these partitions."""
        self._keep_failure(lambda: self._lost(partitions))

    def _revoked(self, partitions: Sequence[TopicPartition]) -> None:
        tasks = self.assignment.tasks_of(partitions)
        if any(task.phase is Phase.RUNNING for task in tasks):
            # There is no second try: these partitions go now.
            with self._recovery.roll_back_on_failure():
                self._membership.revoking()
                self._commits.commit(self._settings.revoke_timeout_ms)
        self._metrics.closing(self.assignment.tasks_of(partitions))
        self.assignment.revoked(partitions, keep_open=self._settings.eager and not self.closing)

    def _lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._metrics.closing(self.assignment.tasks_of(partitions))
        self.assignment.revoked(partitions, keep_open=False)
        self._recovery.roll_back(f"{len(partitions)} partitions were lost", migrated=True)

    def _keep_failure(self, callback: Callable[[], None]) -> None:
        """Errors must not unwind through the client, which would drop the records it has in hand."""
        try:
            callback()
        except BaseException as error:  # noqa: BLE001 - ``raise_failure`` raises it
            self._failure = error

    def raise_failure(self) -> None:
        """Raise what a callback raised since the last call."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
