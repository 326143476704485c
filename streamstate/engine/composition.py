"""Put a worker together: the only place that connects the parts of the engine.

The application, the test driver and the simulation call ``build_worker``. They differ in nothing but the ports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamstate.engine.assign.assignment import Assignment, CheckCapacity, OpenBackend
from streamstate.engine.assign.cluster_watch import ClusterWatch
from streamstate.engine.assign.global_tables import GlobalState
from streamstate.engine.assign.restore import Restorer
from streamstate.engine.assign.topics import Topics, recounted
from streamstate.engine.commit.coordinator import CommitCoordinator
from streamstate.engine.commit.group_membership import GroupMembership
from streamstate.engine.commit.recovery import Recovery
from streamstate.engine.commit.repartition_purge import RepartitionPurger
from streamstate.engine.commit.transaction import AtLeastOnce, Committer, Transaction
from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.flow.outage import OutageMonitor
from streamstate.engine.flow.topic_limits import TopicLimits
from streamstate.engine.metrics import WorkerMetrics
from streamstate.engine.ports import Admin, Background, Clock, Consumer, Producer, RestoreConsumer
from streamstate.engine.processing import BatchProcessor
from streamstate.engine.rebalance import RebalanceHandler
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.backpressure import InputBackpressure
from streamstate.engine.task.task import Task, TaskId
from streamstate.engine.worker import Worker
from streamstate.graph.names import repartition_topic
from streamstate.graph.node import SubTopology
from streamstate.operators.base.holding import AsyncCalls

__all__ = ["WorkerPorts", "build_worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPorts:
    """What a worker needs of the world.

    Attributes:
        consumer: the group's consumer.
        admin: the cluster.
        clock: time.
        make_producer: makes the worker's producer: a transactional one when the settings say exactly once.
        make_restore_consumer: makes a consumer that reads changelogs.
        commit_background: runs commits beside the loop.
        watch_background: asks the cluster questions beside the loop.
        open_backend: opens the state of a task.
        check_capacity: refuses tasks that the machine cannot hold, before any of them is opened.
        calls: runs the coroutines of ``map_async``.
    """

    consumer: Consumer
    admin: Admin
    clock: Clock
    make_producer: Callable[[], Producer]
    make_restore_consumer: Callable[[], RestoreConsumer]
    commit_background: Background
    watch_background: Background
    open_backend: OpenBackend
    check_capacity: CheckCapacity
    calls: AsyncCalls


def build_worker(topics: Topics, ports: WorkerPorts, settings: WorkerSettings) -> Worker:
    """Build a worker that has not started yet.

    Args:
        topics: the topology and its topics, as ``prepare_topics`` has checked them.
        ports: what the worker needs of the world.
        settings: of the worker.
    """
    graph, consumer, admin, clock = topics.graph, ports.consumer, ports.admin, ports.clock
    limits = TopicLimits(admin, clock.now_ms, settings.record_bytes, compressed=settings.compressed)
    global_state = GlobalState(graph, admin, ports.make_restore_consumer, ports.open_backend, settings.restore_batch)
    restorer = Restorer(ports.make_restore_consumer, settings.restore_batch, clock.monotonic_ms)

    def make_task(task_id: TaskId, part: SubTopology) -> Task:
        return Task(
            task_id,
            graph,
            part,
            settings.application_id,
            clock.now_ms,
            limits.of,
            ports.calls,
            global_state.stores,
            topics.marks,
        )

    assignment = Assignment(
        graph,
        settings,
        topics.partition_counts,
        consumer,
        admin,
        restorer,
        ports.open_backend,
        ports.check_capacity,
        make_task,
        clock.monotonic_ms,
        lambda: recounted(graph, settings.application_id, admin),
        topics.marks,
    )
    watch = ClusterWatch(graph, settings, admin, ports.watch_background, clock, global_state.partitions_added)
    outage_monitor = OutageMonitor(clock, settings.broker_timeout_ms)
    repartitions = [
        repartition_topic(settings.application_id, name)
        for part in graph.subtopologies
        for name in part.repartition_sources
    ]
    purger = RepartitionPurger(admin, clock, repartitions, settings.purge_interval_ms)

    def after_commit(tasks: Sequence[Task]) -> None:
        outage_monitor.committed()
        purger.committed(tasks)

    committer: Committer
    if settings.exactly_once:
        committer = Transaction(ports.make_producer, clock, ports.commit_background)
    else:
        committer = AtLeastOnce(ports.make_producer, consumer, clock)
    membership = GroupMembership(consumer)
    metrics = WorkerMetrics()
    commits = CommitCoordinator(settings, assignment, committer, membership, clock, metrics, after_commit)
    recovery = Recovery(assignment, commits, outage_monitor)
    batch_sizer = BatchSizer(clock, settings.batch_ms, settings.max_poll_records)
    backpressure = InputBackpressure(consumer, clock, settings)
    return Worker(
        settings=settings,
        clock=clock,
        consumer=consumer,
        committer=committer,
        assignment=assignment,
        restorer=restorer,
        global_state=global_state,
        processor=BatchProcessor(consumer, assignment, commits, membership, batch_sizer, backpressure),
        batch_sizer=batch_sizer,
        commits=commits,
        recovery=recovery,
        rebalances=RebalanceHandler(settings, assignment, commits, membership, watch, recovery, metrics),
        limits=limits,
        watch=watch,
        outage_monitor=outage_monitor,
        metrics=metrics,
    )
