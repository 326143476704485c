"""What the contract tests need of a side: clients, topics, and a way to wait without sleeping.

A side is the in-memory broker or a real one. The tests know nothing else of either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from streamstate.engine.ports import (
    Admin,
    Consumer,
    Message,
    NewTopic,
    Producer,
    RestoreConsumer,
    Retriable,
    TopicPartition,
)

CALL_MS = 10_000
PROTOCOLS = ("eager", "cooperative", "broker")
# Brokers allow no shorter session by default.
SESSION_MS = 6_000


class Side(Protocol):
    """One implementation of the ports."""

    name: str
    # How long a poll may wait for a first record.
    poll_ms: int
    # The test is over: listeners may be called from close.
    closing: bool

    def consumer(self, group: str, protocol: str = "cooperative", *, instance_id: str | None = None) -> Consumer: ...
    def restore_consumer(self) -> RestoreConsumer: ...
    def producer(self, transactional_id: str | None = None, *, timeout_ms: int = 60_000) -> Producer: ...
    def admin(self) -> Admin: ...
    def now_ms(self) -> int: ...

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Returns when the condition holds; it does the polling. Time passes between two tries.

        Raises:
            AssertionError: it did not hold within the side's patience.
        """
        ...

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Let a topic have so many."""
        ...

    def unique(self, word: str) -> str:
        """A name nobody used yet."""
        ...

    def close(self) -> None:
        """Close every client made here."""
        ...


class Member:
    """A consumer with its listener: notes what happens, starts what it is given.

    Args:
        start_at: where newly assigned partitions start; None leaves them paused.
        on_revoking: runs inside ``on_revoked``.
    """

    def __init__(
        self,
        side: Side,
        consumer: Consumer,
        topics: Sequence[str],
        *,
        start_at: int | None = 0,
        on_revoking: Callable[[Sequence[TopicPartition]], None] | None = None,
    ) -> None:
        self.side = side
        self.consumer = consumer
        self.start_at = start_at
        self.on_revoking = on_revoking
        self.events: list[tuple[str, list[TopicPartition]]] = []
        self.assigned: set[TopicPartition] = set()
        self.records: list[Message] = []
        self._to_start: set[TopicPartition] = set()
        self._polling = False
        consumer.subscribe(topics, self)

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("assigned", partitions)
        self.assigned.update(partitions)
        self._to_start.update(partitions)

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("revoked", partitions)
        if self.on_revoking is not None and not self.side.closing:
            self.on_revoking(partitions)
        self._drop(partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("lost", partitions)
        self._drop(partitions)

    def _note(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        assert self._polling or self.side.closing, f"{kind} outside poll and close"
        self.events.append((kind, sorted(partitions)))

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned.difference_update(partitions)
        self._to_start.difference_update(partitions)

    def poll(self, max_records: int = 500) -> list[Message]:
        """Poll once, start what was assigned."""
        self._polling = True
        try:
            records = list(self.consumer.poll(max_records, self.side.poll_ms))
        finally:
            self._polling = False
        assert len(records) <= max_records
        self.records += records
        if self._to_start and self.start_at is not None:
            try:
                self.consumer.start(dict.fromkeys(self._to_start, self.start_at))
            except Retriable:
                return records
            self._to_start.clear()
        return records

    def close(self) -> None:
        """Close the consumer."""
        self._polling = True
        self.consumer.close()
        self._polling = False

    def named(self, kind: str) -> list[TopicPartition]:
        """Partitions of all events of a kind, in order."""
        return [partition for event, partitions in self.events if event == kind for partition in partitions]


def new_topic(side: Side, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
    """Create a topic nobody knows."""
    name, admin = side.unique("topic"), side.admin()
    admin.create([NewTopic(name, partitions, 1, config or {})])
    every = [TopicPartition(name, number) for number in range(partitions)]
    side.until(repeated(lambda: admin.log_ends(every)), "leaders of a new topic")
    return name


def poll_until(side: Side, members: Sequence[Member], condition: Callable[[], object], what: str) -> None:
    """Poll all members in turn until the condition holds."""

    def step() -> object:
        for member in members:
            member.poll()
        return condition()

    side.until(step, what)


def repeated(call: Callable[[], object]) -> Callable[[], bool]:
    """A condition: the call no longer raises Retriable."""

    def condition() -> bool:
        try:
            call()
        except Retriable:
            return False
        return True

    return condition


def open_producer(side: Side, transactional_id: str | None = None, *, timeout_ms: int = 60_000) -> Producer:
    """A transactional producer that has its id."""
    producer = side.producer(transactional_id or side.unique("tx"), timeout_ms=timeout_ms)
    side.until(repeated(lambda: producer.init(CALL_MS)), "the transactional id")
    return producer


def commit(side: Side, producer: Producer) -> None:
    """Commit, repeating while it is not known."""
    side.until(repeated(lambda: producer.commit(CALL_MS)), "the commit")


def abort(side: Side, producer: Producer) -> None:
    """Abort, repeating while it is not known."""
    side.until(repeated(lambda: producer.abort(CALL_MS)), "the abort")


def flush(side: Side, producer: Producer) -> None:
    """Flush, repeating while not everything is acknowledged."""
    side.until(repeated(lambda: producer.flush(CALL_MS)), "the flush")


def put(side: Side, topic: str, values: Sequence[bytes], *, partition: int = 0, key: bytes | None = b"key") -> None:
    """Put values into a partition without a transaction."""
    producer = side.producer()
    producer.init(CALL_MS)
    producer.send([(topic, value, key, partition, None, None, None) for value in values])
    flush(side, producer)
    producer.close()


def put_transaction(side: Side, producer: Producer, topic: str, values: Sequence[bytes], partition: int = 0) -> None:
    """One committed transaction with these values."""
    producer.begin()
    producer.send([(topic, value, b"key", partition, None, None, None) for value in values])
    commit(side, producer)


def restored(side: Side, partition: TopicPartition, start: int = 0, target: int | None = None) -> list[Message]:
    """Everything committed from ``start`` on, read until the position reaches the target (the log's end)."""
    end = side.admin().log_ends([partition])[partition] if target is None else target
    consumer = side.restore_consumer()
    consumer.assign({partition: start})
    records: list[Message] = []

    def step() -> bool:
        records.extend(consumer.poll(500, side.poll_ms))
        return consumer.positions()[partition] >= end

    side.until(step, f"position {end}")
    consumer.close()
    return records


def values(records: Sequence[Message]) -> list[bytes | None]:
    """Values of records."""
    return [record.value() for record in records]


def offsets(records: Sequence[Message]) -> list[int]:
    """Offsets of records."""
    return [record.offset() for record in records]
