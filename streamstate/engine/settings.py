"""The settings of a worker. Durations are milliseconds here; the public API takes timedeltas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of one worker.

    Attributes:
        application_id: names the consumer group, the internal topics and the transactional ids.
        exactly_once: false for at_least_once.
        eager: true when a rebalance takes all partitions away first, as the ``range`` strategy does.
        commit_interval_ms: longest time between commits while there is something to commit.
        commit_timeout_ms: how long one commit is tried before its outcome is taken as unknown.
        revoke_timeout_ms: the same for a commit within a rebalance, which holds the whole group up.
        poll_ms: longest wait of a poll for its first record.
        max_poll_records: upper limit of records per poll.
        batch_ms: time that one batch of records should take; the batch size adapts to it, so that commits and
            rebalances stay prompt however slow a record is.
        buffer_records: records per partition kept for a task that reads several partitions.
        max_task_idle_ms: how long such a task waits for records of a partition that it has read to the end.
        fetch_wait_ms: how long it waits while it does not know whether a partition has more records.
        behind_wait_ms: how long it waits for a partition that has more records. To go on without them breaks the
            order by time, so this is a limit for brokers that do not deliver, not a pace.
        staging_bytes: uncommitted state that makes the worker commit early.
        cache_bytes: committed entries kept decoded, over all stores.
        restore_batch: upper limit of changelog records per poll.
        purge_interval_ms: time between purges of repartition topics.
        broker_timeout_ms: how long the worker goes on without any answer of a broker before it gives up.
        out_of_range: what to do when a committed input offset is no longer in the log: ``fail``, or go on from its
            ``earliest`` or ``latest`` record.
        record_bytes: the largest record that the producer takes.
        compressed: the producer compresses what it sends.
        watch_interval_ms: time between two checks of the topics and of the group.
        member_prefix: how the client ids of the application's consumers begin; they end with a point and
            ``topology_mark``. Empty: the members of the group are not checked.
        lock_wait_ms: how long a task waits for a state directory that a leaving owner still holds.
    """

    application_id: str
    exactly_once: bool = True
    eager: bool = False
    commit_interval_ms: int = 100
    commit_timeout_ms: int = 60_000
    revoke_timeout_ms: int = 20_000
    poll_ms: int = 100
    max_poll_records: int = 1_000
    batch_ms: int = 30
    buffer_records: int = 1_000
    max_task_idle_ms: int = 0
    fetch_wait_ms: int = 1_000
    behind_wait_ms: int = 60_000
    staging_bytes: int = 64 << 20
    cache_bytes: int = 64 << 20
    restore_batch: int = 1_000
    purge_interval_ms: int = 30_000
    broker_timeout_ms: int = 600_000
    out_of_range: Literal["fail", "earliest", "latest"] = "fail"
    lock_wait_ms: int = 5_000
    record_bytes: int = 1_000_000
    compressed: bool = False
    watch_interval_ms: int = 5_000
    member_prefix: str = ""
