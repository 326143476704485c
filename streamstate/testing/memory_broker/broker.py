"""A Kafka broker in memory: topics, transactions, consumer groups, and the controls for tests.

Rule of this module: deterministic and single-threaded. Nothing happens by itself: every effect comes from a
call, and time passes only in the clock that was handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from streamstate.engine.ports import Clock, GroupMember, GroupTaken, OutOfRange, Position, TopicPartition, Unavailable
from streamstate.engine.task.store_marks import MARK_KEY
from streamstate.partitioning import partition_for
from streamstate.testing.memory_broker.assignors import Assignor, range_assignor, sticky_assignor
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.groups import Group
from streamstate.testing.memory_broker.log import Headers, MemoryMessage, PartitionLog, check_types
from streamstate.testing.memory_broker.transactions import Marker, TransactionCoordinator

__all__ = ["MemoryBroker", "OnCall", "RecordRefused", "Topic"]

# Called as (actor, call, phase) with phase "before" and "after" around every port call.
OnCall = Callable[[str, str, str], None]

DEFAULT_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "delete.retention.ms": "86400000",
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": "9223372036854775807",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
}

# What a record batch and a record weigh besides keys, values and headers.
_OVERHEAD_BYTES = 70


class RecordRefused(Exception):
    """The broker does not take a record; ``reason`` is Kafka's name for why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(slots=True)
class Topic:
    """A topic and its logs."""

    name: str
    topic_id: str
    config: dict[str, str]
    logs: list[PartitionLog] = field(default_factory=list)


class MemoryBroker:
    """One broker, all in memory.

    >>> from streamstate.testing.memory_broker.clock import ManualClock
    >>> broker = MemoryBroker(ManualClock())
    >>> broker.create_topic("words", partitions=2)
    >>> broker.append("words", key=b"a", value=b"1")
    (TopicPartition(topic='words', partition=0), 0)
    >>> broker.pairs("words")
    [(b'a', b'1')]

    Args:
        clock: the only source of time.
        default_partitions: of topics created without a number.

    Attributes:
        on_call: called around every port call of every client, as ``(actor, call, phase)``: ``actor`` is the
            client's id, ``call`` such as ``"producer.commit"``, ``phase`` ``"before"`` (raising: the broker did
            nothing) or ``"after"`` (raising: it did, and the client does not know).
        on_wait: called with a number of milliseconds where a client would wait for something to happen; a
            test may advance its clock there, or let others work. Without it an idle poll takes no time, and a
            call that gives up after its time-out takes that long on a ``ManualClock``.
        lost_as_revoked: members that were dropped hear ``on_revoked`` in place of ``on_lost``, as librdkafka does
            it when a rebalance was under way as the session ended; what they commit there is refused.
        empty_fetches: so many of the next polls find nothing, as when an answer takes longer than the poll waits.
        available: False while the broker is down; see ``stop`` and ``restart``.
        assignors: by protocol.
    """

    def __init__(self, clock: Clock, *, default_partitions: int = 1) -> None:
        self.clock = clock
        self.default_partitions = default_partitions
        self.on_call: OnCall | None = None
        self.on_wait: Callable[[int], None] | None = None
        self.lost_as_revoked = False
        self.empty_fetches = 0
        self.available = True
        self.assignors: dict[str, Assignor] = {
            "eager": range_assignor,
            "cooperative": sticky_assignor,
            "broker": sticky_assignor,
        }
        self.transactions = TransactionCoordinator(clock.monotonic_ms, self._write_marker)
        self._topics: dict[str, Topic] = {}
        self._groups: dict[str, Group] = {}
        self._topics_created = 0
        self._topics_changed = False
        self._spread: dict[str, int] = {}

    # Controls: topics

    def create_topic(self, name: str, partitions: int | None = None, config: Mapping[str, str] | None = None) -> None:
        """Create a topic.

        Raises:
            ValueError: it exists, or has no partitions.
        """
        count = self.default_partitions if partitions is None else partitions
        if name in self._topics or count < 1:
            raise ValueError(f"cannot create topic {name!r} with {count} partitions: exists or too few")
        self._topics_created += 1
        topic = Topic(name, f"topic-id-{self._topics_created}", {**DEFAULT_CONFIG, **(config or {})})
        topic.logs = [PartitionLog(name, number) for number in range(count)]
        self._topics[name] = topic
        self._topics_changed = True

    def add_partitions(self, name: str, partitions: int) -> None:
        """Grow a topic to so many partitions."""
        logs = self.topic(name).logs
        logs.extend(PartitionLog(name, number) for number in range(len(logs), partitions))
        self._topics_changed = True

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records and its committed offsets; one created later has another id."""
        if self._topics.pop(name, None) is not None:
            self._topics_changed = True
            for group in self._groups.values():
                group.forget(name)

    def topic(self, name: str) -> Topic:
        """The topic.

        Raises:
            KeyError: there is none of this name.
        """
        return self._topics[name]

    def topics(self) -> Mapping[str, Topic]:
        """All topics by name."""
        return dict(self._topics)

    def log(self, partition: TopicPartition) -> PartitionLog | None:
        """The partition's log; None where there is no such partition."""
        topic = self._topics.get(partition.topic)
        if topic is None or not 0 <= partition.partition < len(topic.logs):
            return None
        return topic.logs[partition.partition]

    # Controls: records

    def append(
        self,
        topic: str,
        *,
        value: bytes | None,
        key: bytes | None = None,
        partition: int = -1,
        timestamp: int | None = None,
        headers: Headers | None = None,
    ) -> tuple[TopicPartition, int]:
        """Put a record into a topic, as a producer without transactions does. Returns where it is.

        Args:
            partition: -1 for murmur2 of the key; records without key go round.
            timestamp: ms since 1970; None for now.

        Raises:
            RecordRefused: the topic's configuration forbids it.
            TypeError, OverflowError: no client sends it, see ``check_types``.
        """
        check_types(topic, key, value, partition, timestamp, headers)
        at = self.place(topic, key, partition)
        return at, self.write(at, key, value, timestamp, headers)

    def pipe(
        self,
        topic: str,
        pairs: Iterable[tuple[bytes | None, bytes | None]],
        timestamp: int | None = None,
        step_ms: int = 0,
    ) -> None:
        """Append ``(key, value)`` pairs, the first at ``timestamp``, each next one ``step_ms`` later."""
        for number, (key, value) in enumerate(pairs):
            at_ms = None if timestamp is None else timestamp + number * step_ms
            self.append(topic, key=key, value=value, timestamp=at_ms)

    def read(
        self, topic: str, partition: int | None = None, *, committed: bool = True, marks: bool = False
    ) -> list[MemoryMessage]:
        """Records now in a topic, or in one partition, as a reader of committed (or of all) records sees them,
        by partition and offset.

        Args:
            topic: its name.
            partition: None: all of them.
            committed: leave out what open and aborted transactions wrote.
            marks: with the marks of stores, which changelogs have beside the entries.
        """
        logs = self.topic(topic).logs
        chosen = logs if partition is None else [logs[partition]]
        records = [record for log in chosen for record in log.read(log.start, log.end - log.start, committed)[0]]
        return records if marks else [record for record in records if record.key() != MARK_KEY]

    def pairs(self, topic: str, partition: int | None = None) -> list[tuple[bytes | None, bytes | None]]:
        """``(key, value)`` of what ``read`` finds."""
        return [(record.key(), record.value()) for record in self.read(topic, partition)]

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Move log starts up.

        Raises:
            OutOfRange: behind the log's end, or no such partition.
        """
        for partition, offset in before.items():
            log = self.log(partition)
            if log is None or offset > log.end:
                raise OutOfRange(f"{partition.topic}[{partition.partition}] has no offset {offset}", partition)
        for partition, offset in before.items():
            if (log := self.log(partition)) is not None:
                log.delete_before(offset)

    def retain(self, topic: str | None = None) -> None:
        """Delete what ``retention.ms`` no longer covers, in one topic or in all whose policy deletes.

        By record timestamp, as brokers do it: old event times are gone at once.
        """
        for each in self._topics.values() if topic is None else (self.topic(topic),):
            retention_ms = int(each.config["retention.ms"])
            if "delete" in each.config["cleanup.policy"] and retention_ms >= 0:
                for log in each.logs:
                    log.retain(self.clock.now_ms() - retention_ms)

    def compact(
        self, topic: str, *, tombstones: bool = True, markers: bool = True, trailing_marker: bool = True
    ) -> None:
        """Compact every partition now; see ``PartitionLog.compact``."""
        for log in self.topic(topic).logs:
            log.compact(tombstones=tombstones, markers=markers, trailing_marker=trailing_marker)

    # Controls: groups and faults

    def group(self, name: str) -> Group:
        """The consumer group.

        Raises:
            KeyError: nobody has used it yet.
        """
        return self._groups[name]

    def committed(self, group: str) -> dict[TopicPartition, Position]:
        """Positions the group has committed; pending ones are not among them."""
        return dict(self._groups[group].offsets) if group in self._groups else {}

    def members(self, group: str) -> list[GroupMember]:
        """Present members of the group, none where nobody has used it yet."""
        if group not in self._groups:
            return []
        found, given = self._groups[group], self._groups[group].assignment()
        return [
            GroupMember(member_id, member.client_id, "memory", frozenset(given[member_id]))
            for member_id, member in found.members.items()
        ]

    def expel(self, client_id: str) -> None:
        """Drop the client's memberships, as if its session had run out."""
        for group in self._groups.values():
            for member in list(group.members.values()):
                if member.client_id == client_id:
                    group.leave(member.member_id)

    def stop(self) -> None:
        """Go down: every call that needs a broker raises Unavailable; nothing expires."""
        self.available = False

    def restart(self) -> None:
        """Come back with everything that was there. Sessions start anew, transaction time-outs do not."""
        self.available = True
        for group in self._groups.values():
            for member in group.members.values():
                member.last_seen_ms = self.clock.monotonic_ms()

    def expire(self) -> None:
        """Do what time demands: end sessions, abort old transactions, write due markers. Every port call does
        this first."""
        if self.available:
            now = self.clock.monotonic_ms()
            for group in self._groups.values():
                group.expire(now)
            self.transactions.expire()

    # For the adapters

    def give_up(self, timeout_ms: int) -> None:
        """A client waits for this long in vain."""
        if self.on_wait is not None:
            self.on_wait(timeout_ms)
        elif isinstance(self.clock, ManualClock):
            # Otherwise a caller that repeats until its deadline would repeat for ever.
            self.clock.advance(timeout_ms)

    def require(self, timeout_ms: int = 0) -> None:
        """Do what time demands, if the broker is there.

        Raises:
            Unavailable: the broker is down, and stays so while the client waits.
        """
        if not self.available and timeout_ms > 0:
            self.give_up(timeout_ms)
        if not self.available:
            raise Unavailable("the in-memory broker is stopped")
        self.expire()
        if self._topics_changed:
            self._topics_changed = False
            for group in self._groups.values():
                group.refresh()

    def place(self, topic: str, key: bytes | None, partition: int) -> TopicPartition:
        """Where a record goes."""
        if partition < 0:
            existing = self._topics.get(topic)
            count = len(existing.logs) if existing else 1
            if key is None:
                turn = self._spread.get(topic, 0)
                self._spread[topic] = turn + 1
                partition = turn % count
            else:
                partition = partition_for(key, count) if count > 1 else 0
        return TopicPartition(topic, partition)

    def check(
        self,
        at: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        timestamp: int | None,
        headers: Headers | None,
    ) -> None:
        """
        Raises:
            RecordRefused: the broker would not take this record.
        """
        topic = self._topics.get(at.topic)
        if topic is None or not 0 <= at.partition < len(topic.logs):
            raise RecordRefused("UNKNOWN_TOPIC_OR_PART", f"{at.topic}[{at.partition}] does not exist")
        config = topic.config
        size = _OVERHEAD_BYTES + len(key or b"") + len(value or b"")
        if headers:
            size += sum(len(name) + len(data or b"") + 2 for name, data in headers)
        if size > int(config["max.message.bytes"]):
            raise RecordRefused("MSG_SIZE_TOO_LARGE", f"{size} bytes for {at.topic}[{at.partition}]")
        if key is None and "compact" in config["cleanup.policy"]:
            raise RecordRefused("INVALID_RECORD", f"no key for the compacted topic {at.topic}")
        if timestamp is not None and config["message.timestamp.type"] == "CreateTime":
            ahead_ms = timestamp - self.clock.now_ms()
            after_ms = int(config["message.timestamp.after.max.ms"])
            before_ms = int(config["message.timestamp.before.max.ms"])
            if timestamp < 0 or ahead_ms > after_ms or -ahead_ms > before_ms:
                raise RecordRefused("INVALID_TIMESTAMP", f"{timestamp} ms for {at.topic}[{at.partition}]")

    def write(
        self,
        at: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        timestamp: int | None,
        headers: Headers | None,
    ) -> int:
        """Append to the log, outside of transactions. Returns the offset.

        Raises:
            RecordRefused: see ``check``.
        """
        self.check(at, key, value, timestamp, headers)
        return self.add(at, key, value, timestamp, headers)

    def add(
        self,
        at: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        timestamp: int | None,
        headers: Headers | None,
        producer_id: int = -1,
    ) -> int:
        """Append what ``check`` has let pass, in the producer's transaction where it has one; the partition was added
        to that before. Returns the offset."""
        topic = self._topics[at.topic]
        by_broker = topic.config["message.timestamp.type"] == "LogAppendTime"
        if by_broker or timestamp is None:
            timestamp = self.clock.now_ms()
        return topic.logs[at.partition].append(key, value, timestamp, 2 if by_broker else 1, headers, producer_id)

    def use_group(self, name: str, protocol: str | None = None) -> Group:
        """The group, made where it is new; its protocol changes only while it is empty.

        Raises:
            GroupTaken: members use another protocol.
        """
        group = self._groups.get(name)
        if group is None:
            group = Group(name, protocol or "eager", self.assignors[protocol or "eager"], self._counts)
            self._groups[name] = group
        elif protocol is not None and protocol != group.protocol:
            if group.members:
                raise GroupTaken(f"group {name!r} uses the protocol {group.protocol!r}, not {protocol!r}")
            group.protocol = protocol
            group.assignor = self.assignors[protocol]
        return group

    def _counts(self, names: Collection[str]) -> dict[str, int]:
        return {name: len(self._topics[name].logs) for name in sorted(names) if name in self._topics}

    def _write_marker(self, marker: Marker) -> None:
        if isinstance(marker.target, TopicPartition):
            log = self.log(marker.target)
            if log is not None:
                log.end_transaction(marker.producer_id, marker.commit, self.clock.now_ms())
        else:
            self._groups[marker.target].resolve(marker.producer_id, marker.commit)
