"""What the engine can be told. Durations are milliseconds here; the public boundary takes timedeltas."""

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
        poll_ms: longest wait for records when there is nothing else to do.
        max_poll_records: most records taken at once.
        batch_ms: time that one batch of records should take; the batch size adapts to it, so that commits and
            rebalances stay prompt whatever a record costs.
        buffer_records: records per partition kept for a task that reads several partitions.
        max_task_idle_ms: how long such a task waits for a caught-up partition before it goes on without it.
        fetch_wait_ms: how long it waits for a partition of which it is not known whether it has more.
        behind_wait_ms: how long it waits for a partition that is known to have more. Going on without it breaks the
            order by time, so this is a limit for brokers that do not deliver, not a pace.
        staging_bytes: uncommitted state that makes the worker commit early.
        cache_bytes: committed entries kept decoded, over all stores.
        restore_batch: most changelog records taken at once.
        purge_interval_ms: time between purges of repartition topics.
        broker_timeout_ms: how long the worker goes on without any answer of a broker before it gives up.
        out_of_range: what to do when a committed input offset is no longer in the log: ``fail``, or go on from its
            ``earliest`` or ``latest`` record.
        record_bytes: the largest record that the producer takes.
        compressed: the producer compresses what it sends.
        watch_interval_ms: time between two looks at what others do to the topics and to the group.
        member_prefix: how the client ids of the application's consumers begin; they end with a point and
            ``topology_mark``. Empty: nobody looks who is in the group.
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
