"""The ports ``Consumer`` and ``RestoreConsumer`` on confluent-kafka."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from streamstate.engine.ports import (
    Fenced,
    GroupMetadata,
    GroupTaken,
    Message,
    NotAuthorized,
    OutOfRange,
    Position,
    RebalanceListener,
    Retriable,
    TopicPartition,
    Unavailable,
)
from streamstate.kafka.errors import AUTHORIZATION, GROUP_MOVED, denied, general, kafka_error, text, topic_in
from streamstate.kafka.events import ClientErrors

log = logging.getLogger("streamstate.kafka")

RebalanceProtocol = Literal["cooperative", "eager", "broker"]


METADATA_PREFIX = b"CGMDv2:"

READER_DEFAULTS: dict[str, Any] = {
    # Small, so that what was fetched is still in the processor's caches when its turn comes: with 20,000 records and
    # fetches of 1 MB, a count took a fifth more processor time per record, and 40 MB more memory.
    "queued.min.messages": 5_000,
    "fetch.message.max.bytes": 262_144,
    "queued.max.messages.kbytes": 65_536,
    # The default of a second leaves the queue dry between fetches: a fifth of the rate.
    "fetch.queue.backoff.ms": 10,
    # Also how long a sought partition waits behind the fetch under way.
    "fetch.wait.max.ms": 50,
    "fetch.error.backoff.ms": 50,
    "retry.backoff.ms": 50,
    "topic.metadata.refresh.interval.ms": 60_000,
}
# A replay does little with a record, and is faster the more the client has in hand: 580,000 a second, not 460,000.
RESTORE_DEFAULTS: dict[str, Any] = {
    **READER_DEFAULTS,
    "queued.min.messages": 20_000,
    "fetch.message.max.bytes": 1 << 20,
}
# Not overridable: the engine's guarantees rest on them.
READER_RULES: dict[str, Any] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
    "auto.offset.reset": "error",
}


class KafkaConsumer:
    """See ``streamstate.engine.ports.Consumer``.

    Args:
        properties: of the client.
        group: the consumer group.
        protocol: ``cooperative`` (cooperative-sticky), ``eager`` (range: topics with equal partition counts meet in
            one member) or ``broker`` (group.protocol=consumer).
        instance_id: makes a static member.
        co_partitioned: with ``broker``: ask for an assignor that lets equal partitions meet.
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        group: str,
        protocol: RebalanceProtocol = "cooperative",
        *,
        instance_id: str | None = None,
        co_partitioned: bool = False,
    ) -> None:
        settings = {**READER_DEFAULTS, **properties, **READER_RULES, "group.id": group}
        if instance_id is not None:
            settings["group.instance.id"] = instance_id
        if protocol == "broker":
            settings["group.protocol"] = "consumer"
            settings["group.remote.assignor"] = "range" if co_partitioned else "uniform"
            # Set at the broker in this protocol; the client refuses them.
            for name in ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"):
                settings.pop(name, None)
        else:
            settings["partition.assignment.strategy"] = "range" if protocol == "eager" else "cooperative-sticky"
        self._eager = protocol == "eager"
        self._group = group
        self._errors = ClientErrors(settings, warn=True)
        self._consumer = Consumer({**settings, "error_cb": self._errors}, logger=self._errors)
        self._reader = _Reader(self._consumer, self._errors, group)
        self._listener: RebalanceListener | None = None
        self._assigned: set[TopicPartition] = set()
        self._started: set[TopicPartition] = set()

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """See the port."""
        self._listener = listener
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    # -- callbacks of the client, from within poll and close -----------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        assert self._listener is not None, "assigned before it subscribed"
        # A concrete offset keeps the client from looking one up, whose late answer would override the seek that
        # follows; paused, nothing is fetched from it. The engine says later where to start.
        for partition in partitions:
            partition.offset = 0
        if self._eager:
            consumer.assign(partitions)
        else:
            consumer.incremental_assign(partitions)
        if partitions:
            consumer.pause(partitions)
        added = _ours(partitions)
        self._assigned.update(added)
        self._listener.on_assigned(added)

    def _on_revoke(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        assert self._listener is not None, "revoked before it subscribed"
        gone = _ours(partitions)
        self._listener.on_revoked(gone)
        self._drop(consumer, partitions, gone)

    def _on_lost(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        assert self._listener is not None, "lost before it subscribed"
        gone = _ours(partitions)
        self._assigned.difference_update(gone)
        self._listener.on_lost(gone)
        self._drop(consumer, partitions, gone)

    def _drop(self, consumer: Consumer, partitions: list[ClientPartition], gone: list[TopicPartition]) -> None:
        self._assigned.difference_update(gone)
        self._started.difference_update(gone)
        if self._eager:
            consumer.unassign()
        else:
            consumer.incremental_unassign(partitions)

    # -- reading -------------------------------------------------------------------------------------------

    def poll(self, max_records: int, timeout_ms: int) -> Sequence[Message]:
        """See the port."""
        try:
            return self._reader.poll(max_records, timeout_ms)
        except OutOfRange as error:
            if error.partition is not None and error.partition not in self._started:
                # The offset it was assigned with, which was only there to be replaced by ``start``.
                return ()
            raise

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See the port."""
        partitions = [ClientPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        try:
            # In this order: a seek wakes the fetcher, resuming alone lets it sleep on for a second. What a fetch
            # between the two brings is of an older version and dropped by the client.
            self._consumer.resume(partitions)
            for partition in partitions:
                self._consumer.seek(partition)
        except KafkaException as error:
            if kafka_error(error).code() != KafkaError._STATE:
                raise Retriable(f"seeking: {error}") from error
            # Its fetcher has stopped, as after an offset that was out of range: a seek would never succeed.
            self._assign_anew(offsets)
        self._started.update(offsets)

    def _assign_anew(self, offsets: Mapping[TopicPartition, int]) -> None:
        partitions = [ClientPartition(*partition, offset) for partition, offset in offsets.items()]
        try:
            if self._eager:
                others = [ClientPartition(*p) for p in self._assigned if p not in offsets]
                # Records up to these positions were handed over; what was only fetched is fetched again.
                kept = self._consumer.position(others)
                for position in kept:
                    position.offset = max(0, position.offset)
                self._consumer.assign([*partitions, *kept])
            else:
                self._consumer.incremental_unassign(partitions)
                self._consumer.incremental_assign(partitions)
            # A pause outlives an assignment.
            self._consumer.resume(partitions)
        except KafkaException as error:
            raise Retriable(f"assigning anew: {error}") from error

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """See the port."""
        held = [ClientPartition(*partition) for partition in partitions if partition in self._assigned]
        if held:
            self._consumer.pause(held)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """See the port."""
        held = [ClientPartition(*partition) for partition in partitions if partition in self._assigned]
        if held:
            self._consumer.resume(held)

    def committed(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> dict[TopicPartition, Position | None]:
        """See the port."""
        try:
            answer = self._consumer.committed([ClientPartition(*p) for p in partitions], timeout=timeout_ms / 1000)
        except KafkaException as error:
            mapped = general(error)
            if isinstance(mapped, NotAuthorized):
                raise denied(str(mapped), "group", self._group, "Read") from error
            raise (mapped if isinstance(mapped, Retriable) else Retriable(str(mapped))) from error
        found: dict[TopicPartition, Position | None] = {}
        for position in answer:
            if position.error is not None:
                if position.error.code() in AUTHORIZATION:
                    raise denied(text(position.error), "topic", position.topic, "Describe")
                raise Retriable(f"{position.topic} {position.partition}: {text(position.error)}")
            partition = TopicPartition(position.topic, position.partition)
            known = position.offset >= 0
            found[partition] = Position(position.offset, position.metadata or "") if known else None
        return found

    def group_metadata(self) -> GroupMetadata:
        """See the port."""
        token = self._consumer.consumer_group_metadata()
        return GroupMetadata(*membership(token), token)

    def commit(self, offsets: Mapping[TopicPartition, Position]) -> None:
        """See the port."""
        positions = [
            ClientPartition(topic, partition, position.offset, position.metadata)
            for (topic, partition), position in offsets.items()
        ]
        try:
            answer = self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:
            raise general(error) from error
        for position in answer or ():
            if position.error is not None:
                raise general(position.error)

    def lag(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """See the port."""
        behind = {}
        for partition, offset in positions.items():
            try:
                _, end = self._consumer.get_watermark_offsets(ClientPartition(*partition), cached=True)
            except KafkaException as error:
                log.debug("no watermark of %s yet: %s", partition, error)
                continue
            if end >= 0:
                behind[partition] = max(0, end - offset)
        # The client's own position has passed what was handed over, and transaction markers, which the last
        # record's offset has not.
        asked = [ClientPartition(*partition) for partition in behind if behind[partition]]
        for position in self._consumer.position(asked) if asked else ():
            partition = TopicPartition(position.topic, position.partition)
            passed = position.offset - positions[partition]
            if position.offset >= 0 and passed > 0:
                behind[partition] = max(0, behind[partition] - passed)
        return behind

    def close(self) -> None:
        """See the port."""
        self._consumer.close()


class KafkaRestoreConsumer:
    """See ``streamstate.engine.ports.RestoreConsumer``.

    It is assigned its partitions, never joins a group and never commits, but librdkafka wants a group and looks for its
    coordinator, for which a principal needs a right on the group. So it names the application's own group, on which
    the principal has that right anyway.

    Args:
        properties: of the client.
        group: the application's consumer group.
    """

    def __init__(self, properties: Mapping[str, Any], group: str) -> None:
        settings = {**RESTORE_DEFAULTS, **properties, **READER_RULES, "group.id": group}
        for member in ("group.instance.id", "group.protocol", "partition.assignment.strategy"):
            settings.pop(member, None)
        errors = ClientErrors(settings)
        self._consumer = Consumer({**settings, "error_cb": errors}, logger=errors)
        self._reader = _Reader(self._consumer, errors, group)
        self._offsets: dict[TopicPartition, int] = {}

    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See the port."""
        gone = [partition for partition in self._offsets if partition not in offsets]
        new = [partition for partition in offsets if partition not in self._offsets]
        if gone:
            self._consumer.incremental_unassign([ClientPartition(*partition) for partition in gone])
        if new:
            self._consumer.incremental_assign([ClientPartition(*p, offsets[p]) for p in new])
        kept = {partition: offset for partition, offset in self._offsets.items() if partition in offsets}
        self._offsets = {**{partition: offsets[partition] for partition in new}, **kept}

    def poll(self, max_records: int, timeout_ms: int) -> Sequence[Message]:
        """See the port."""
        return self._reader.poll(max_records, timeout_ms)

    def positions(self) -> dict[TopicPartition, int]:
        """See the port."""
        if not self._offsets:
            return {}
        for position in self._consumer.position([ClientPartition(*partition) for partition in self._offsets]):
            partition = TopicPartition(position.topic, position.partition)
            if position.offset > self._offsets[partition]:
                self._offsets[partition] = position.offset
        return dict(self._offsets)

    def close(self) -> None:
        """See the port."""
        self._consumer.close()


def membership(token: bytes) -> tuple[int, str]:
    """Generation and member id in librdkafka's serialized group metadata; (-1, "") when it cannot be read.

    The format is librdkafka's own: a tag, the generation as a native 32-bit integer, then zero-terminated group and
    member ids. An unknown format reads as no member, so that nothing is committed rather than committed unchecked.

    >>> membership(b"CGMDv2:" + (5).to_bytes(4, sys.byteorder) + b"group\\x00member-1\\x00\\x01")
    (5, 'member-1')
    """
    if not token.startswith(METADATA_PREFIX):
        return -1, ""
    start = len(METADATA_PREFIX)
    generation = int.from_bytes(token[start : start + 4], sys.byteorder, signed=True)
    parts = token[start + 4 :].split(b"\x00", 2)
    return (generation, parts[1].decode()) if len(parts) == 3 else (-1, "")


def _ours(partitions: Iterable[ClientPartition]) -> list[TopicPartition]:
    return [TopicPartition(partition.topic, partition.partition) for partition in partitions]


class _Reader:
    """Batches of records; the client's events between them are raised when their turn comes."""

    def __init__(self, consumer: Consumer, errors: ClientErrors, group: str) -> None:
        self._consumer = consumer
        self._group = group
        self._errors = errors
        self._failure: Exception | None = None

    def poll(self, max_records: int, timeout_ms: int) -> Sequence[Message]:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        # consume() waits until it has all it asked for; so take what is there, and wait for a first one only.
        messages: list[Any] = self._consumer.consume(max_records, 0)
        if not messages and timeout_ms > 0:
            first = self._consumer.poll(timeout_ms / 1000)
            if first is None:
                self._errors.check()
                return ()
            messages = [first]
            if max_records > 1:
                messages += self._consumer.consume(max_records - 1, 0)
        for message in messages:
            if message.error() is not None:
                return self._without_events(messages)
        return messages

    def _without_events(self, messages: list[Any]) -> list[Message]:
        """Records of a batch with events in it. Their positions have advanced, so they must be handed over; what an
        event asks for is raised by the next poll."""
        records: list[Message] = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            else:
                self._failure = _event(error, message, self._group) or self._failure
        # Events about lost connections may come without an end.
        self._errors.check()
        if records or self._failure is None:
            return records
        failure, self._failure = self._failure, None
        raise failure


def _event(error: KafkaError, message: Any, group: str) -> Exception | None:
    code = error.code()
    if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        known = message.topic() is not None and message.partition() is not None and message.partition() >= 0
        partition = TopicPartition(message.topic(), message.partition()) if known else None
        return OutOfRange(text(error), partition)
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return denied(text(error), "group", group, "Read")
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return denied(text(error), "topic", message.topic() or topic_in(error), "Read")
    if code in AUTHORIZATION or (error.fatal() and code not in GROUP_MOVED):
        return general(error)
    if error.fatal() or code == KafkaError.FENCED_INSTANCE_ID:
        return Fenced(text(error))
    if code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
        log.info("the client has lost its brokers and keeps trying: %s", text(error))
        return None
    if code == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
        return GroupTaken(text(error))
    if code == KafkaError._MAX_POLL_EXCEEDED:
        log.warning("a batch took longer than max.poll.interval.ms; the group takes this member's partitions away")
        return None
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return Unavailable(f"topic {message.topic()!r} cannot be read: {text(error)}")
    log.info("event of the client: %s", text(error))
    return None
