"""The ports: what the engine needs of the world. Consumers, a producer, an admin client, background work and a clock.

``streamstate.kafka`` implements them on a broker, ``streamstate.testing`` in memory; one contract suite holds both to
these protocols. An adapter maps every error of its client to one of the exceptions below, which are named by what the
engine must do next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Position(NamedTuple):
    """A committed input offset.

    Attributes:
        offset: of the next record to read.
        metadata: a short text kept with the offset, see ``task/offset_metadata.py``.
    """

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class GroupMetadata:
    """A membership of the consumer group at one moment.

    Attributes:
        generation: of the group, or the member's epoch; negative when the client is not a member.
        member_id: empty when the client is not a member.
        token: of the client library, handed back to it.
    """

    generation: int
    member_id: str
    token: Any = None

    @property
    def is_member(self) -> bool:
        """False when the client was dropped from the group. Offsets sent with such metadata would not be
        checked by the broker at all, so they must never be sent."""
        return self.generation >= 0 and bool(self.member_id)


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a consumer group, as the broker describes it.

    Attributes:
        member_id: unique in the group.
        client_id: what its client calls itself.
        host: where it connects from.
        partitions: what it was given.
    """

    member_id: str
    client_id: str
    host: str
    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as it exists.

    Attributes:
        partitions: their number.
        topic_id: changes when the topic is deleted and created again; empty when unknown.
        allowed: operations on it that the broker allows this principal, by the names that ``kafka-acls.sh`` has for
            them; None when unknown.
    """

    partitions: int
    topic_id: str = ""
    allowed: frozenset[str] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create. ``None`` leaves a number to the broker's default."""

    name: str
    partitions: int | None = None
    replication_factor: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)


class PortError(Exception):
    """Base of what adapters raise."""


class Retriable(PortError):
    """The call did nothing, or its outcome is unknown: make the same call again."""


class Unavailable(Retriable):
    """No broker answers."""


class Unreachable(Unavailable):
    """No broker answers, and the message of the client says why."""


class GroupTaken(Retriable):
    """The group has members with another protocol or assignment strategy, and does not admit this one while they are
    there."""


class AbortRequired(PortError):
    """The transaction cannot commit: abort it and process its records again."""


class Refused(AbortRequired):
    """A record itself is not acceptable (too large, its topic or time not allowed): sending it again cannot help."""


class Fenced(PortError):
    """Another producer took this transactional id, or the group moved on: uncommitted work is void and the
    producer may be unusable."""


class ProducerFatal(PortError):
    """The producer cannot be used any more: make a new one. The outcome of its last commit is unknown."""


class OutOfRange(PortError):
    """A fetch position does not exist in the log."""

    def __init__(self, message: str, partition: TopicPartition | None = None) -> None:
        super().__init__(message)
        self.partition = partition


class NotAuthorized(PortError):
    """The broker refuses the operation to this principal.

    Args:
        message: what the broker says, and about what.
        resource: the kind of what is denied, as in ``kafka-acls.sh --topic``; empty when unknown.
        name: of what is denied.
        operation: the missing right, as in ``kafka-acls.sh --operation Read``.
    """

    def __init__(self, message: str, resource: str = "", name: str = "", operation: str = "") -> None:
        super().__init__(message)
        self.resource, self.name, self.operation = resource, name, operation

    @classmethod
    def lacking(cls, what: str, resource: str, name: str, operation: str) -> NotAuthorized:
        """A denial that names the resource and the command that grants what is missing.

        >>> print(NotAuthorized.lacking("no", "topic", "in", "Read"))
        Read on topic 'in' is denied (no). Grant it: kafka-acls.sh --bootstrap-server HOST:PORT --add \
--allow-principal User:NAME --operation Read --topic in
        """
        where, option = f"{resource} {name!r}", f"--{resource} {name}"
        if resource == "cluster":
            where, option = "the cluster", "--cluster"
        return cls(
            f"{operation} on {where} is denied ({what}). Grant it: kafka-acls.sh --bootstrap-server HOST:PORT --add "
            f"--allow-principal User:NAME --operation {operation} {option}",
            resource,
            name,
            operation,
        )


class LoginFailed(PortError):
    """A broker refuses the credentials, or a TLS handshake fails: waiting does not help."""


class Message(Protocol):
    """A consumed record. confluent-kafka's Message is one."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]:
        """(kind, ms since 1970); kind 0: not available."""
        ...

    def headers(self) -> list[tuple[str, bytes | None]] | None: ...


class RebalanceListener(Protocol):
    """Called from within ``Consumer.poll`` and ``Consumer.close`` only."""

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Partitions were added. They stay paused until ``Consumer.start``. May be empty."""
        ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Partitions go to another member when this returns: the last moment to commit for them."""
        ...

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Partitions may already belong to another member: nothing of them may be committed."""
        ...


class Consumer(Protocol):
    """The group's consumer: reads committed records only."""

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None: ...

    def poll(self, max_records: int, timeout_ms: int) -> Sequence[Message]:
        """At most ``max_records`` of the started partitions. Waits for the first one only. Records of one
        partition come in order; none comes of a partition that was taken away before this returned.

        Raises:
            OutOfRange: a position fell out of the log.
            GroupTaken: members of another kind keep this one out; again at each attempt to get in.
            Unavailable: no broker answers (only after the adapter's own patience).
        """
        ...

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these assigned partitions from exactly these offsets on; also to go back after an abort.

        Raises:
            Retriable: the client is not ready yet.
        """
        ...

    def pause(self, partitions: Iterable[TopicPartition]) -> None: ...
    def resume(self, partitions: Iterable[TopicPartition]) -> None: ...

    def committed(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> dict[TopicPartition, Position | None]:
        """Committed positions; None where there is none.

        Raises:
            Retriable: a transaction with offsets of one of them is still pending, or the call timed out.
        """
        ...

    def group_metadata(self) -> GroupMetadata: ...

    def commit(self, offsets: Mapping[TopicPartition, Position]) -> None:
        """Commit without a transaction (at least once).

        Raises:
            Fenced: the group moved on.
            Retriable: it did not arrive.
        """
        ...

    def lag(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Records behind the logs' ends as last seen, without a round trip. Those that ``poll`` has handed over do not
        count, nor do transaction markers; partitions not seen yet are left out."""
        ...

    def close(self) -> None:
        """Leave the group; calls the listener for what is still assigned."""
        ...


class RestoreConsumer(Protocol):
    """Reads changelogs, committed records only, outside any group."""

    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions from these offsets on; partitions already being read keep their
        position."""
        ...

    def poll(self, max_records: int, timeout_ms: int) -> Sequence[Message]:
        """As ``Consumer.poll``."""
        ...

    def positions(self) -> dict[TopicPartition, int]:
        """Next offset per assigned partition, past transaction markers and compacted records; at least the
        assigned offset."""
        ...

    def close(self) -> None: ...


# Called with (error or None, offset) when the broker has acknowledged or refused the record.
DeliveryCallback = Callable[[Exception | None, int], None]

# (topic, value, key, partition or -1, callback or None, timestamp in ms or None for now, headers or None)
Output = tuple[
    str,
    bytes | None,
    bytes | None,
    int,
    DeliveryCallback | None,
    int | None,
    list[tuple[str, bytes | None]] | None,
]


class Producer(Protocol):
    """The worker's producer. Partition -1 means murmur2 of the key, as Kafka's Java client does it."""

    def init(self, timeout_ms: int) -> None:
        """Take the transactional id; aborts what a predecessor left open. A no-op when not transactional.

        Raises:
            Retriable, Fenced, ProducerFatal
        """
        ...

    def begin(self) -> None:
        """Open a transaction."""
        ...

    def send(self, outputs: Sequence[Output]) -> None:
        """Hand over, in order. Waits while the client's queue is full.

        Raises:
            AbortRequired, Fenced, ProducerFatal: from here on nothing of the transaction will commit.
        """
        ...

    def flush(self, timeout_ms: int) -> None:
        """Wait until everything sent is acknowledged and its callbacks ran.

        Raises:
            Retriable: not all within the time.
            AbortRequired: a record was refused; some clients say so only at ``commit``.
        """
        ...

    def send_offsets(
        self, offsets: Mapping[TopicPartition, Position], metadata: GroupMetadata, timeout_ms: int
    ) -> None:
        """Add input offsets to the transaction.

        Raises:
            Fenced: the metadata is not of the group's present generation.
            Retriable, AbortRequired, ProducerFatal
        """
        ...

    def commit(self, timeout_ms: int) -> None:
        """Commit the transaction.

        Raises:
            Retriable: unknown yet whether it took place: call again.
            AbortRequired, Fenced: it did not take place.
            ProducerFatal: unknown for good.
        """
        ...

    def abort(self, timeout_ms: int) -> None:
        """Abort the transaction; records still queued are dropped.

        Raises:
            Retriable, Fenced, ProducerFatal
        """
        ...

    def close(self) -> None: ...


class Admin(Protocol):
    """Cluster questions. Each raises Unavailable when no broker answers within the adapter's time-out."""

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Return those of ``names`` that exist."""
        ...

    def create(self, topics: Sequence[NewTopic]) -> None:
        """Create; one that exists already is left as it is. Returns when all are visible."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete; missing ones are ignored."""
        ...

    def config(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Effective configuration per topic; topics whose configuration may not be read are left out."""
        ...

    def log_ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset behind the last record, read_uncommitted: records of open transactions included. Partitions that do
        not exist are left out."""
        ...

    def log_starts(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset of the first record still there; partitions that do not exist are left out."""
        ...

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete records below these offsets."""
        ...

    def members(self, group: str) -> list[GroupMember]:
        """Present members of a consumer group; none where there is no such group.

        Raises:
            NotAuthorized: this principal may not describe the group.
        """
        ...

    def close(self) -> None: ...


class Job(Protocol):
    """A piece of work that runs beside the worker's loop."""

    def done(self, timeout_ms: int) -> bool:
        """Return true when the work has ended; wait ``timeout_ms`` for that."""
        ...

    def result(self) -> None:
        """Raise what the work raised. Only after ``done`` said True."""
        ...


class Background(Protocol):
    """Runs one piece of work at a time beside the worker's loop, a commit for instance."""

    def start(self, work: Callable[[], None]) -> Job: ...

    def close(self) -> None:
        """Accept no more work."""
        ...


class Clock(Protocol):
    """The time."""

    def now_ms(self) -> int:
        """Return wall-clock time in ms since 1970."""
        ...

    def monotonic_ms(self) -> int:
        """Return milliseconds since some fixed moment; never goes back."""
        ...
