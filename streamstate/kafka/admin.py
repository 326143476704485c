"""The port ``Admin`` on confluent-kafka."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from time import monotonic, sleep
from typing import Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.admin import NewTopic as ClientTopic  # type: ignore[attr-defined]

from streamstate.engine.ports import GroupMember, NewTopic, PortError, TopicInfo, TopicPartition, Unavailable
from streamstate.kafka.errors import AUTHORIZATION, Resource, denied, general, kafka_error, text
from streamstate.kafka.events import ClientErrors

T = TypeVar("T")

VISIBLE_POLL_S = 0.05
STOP_POLL_S = 0.2
# How long a call that cannot be interrupted may wait before the client is heard.
LISTEN_S = 1.5
# Between new clients while partitions seem to be missing; each costs connections and threads.
RENEWAL_S = 5.0
# What the client says of a partition that does not exist.
GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._NOENT)


RESOURCE_TYPES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Delete": AclOperation.DELETE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}
# Kind and name of a resource, and the operation.
Right = tuple[Resource, str, str]


# Of a member's assignment: version and number of topics, length of a name, number of partitions.
_ASSIGNMENT, _LENGTH, _COUNT = struct.Struct(">hi"), struct.Struct(">h"), struct.Struct(">i")


class KafkaAdmin:
    """See ``streamstate.engine.ports.Admin``.

    Args:
        properties: of the client.
        timeout_ms: of each call.
        told_to_stop: asked while a call waits; once true, the wait ends as if no broker answered.
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        timeout_ms: int = 15_000,
        told_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._told_to_stop = told_to_stop
        self._timeout_s = timeout_ms / 1000
        # Lives on in the clients that replace the first one.
        self.errors = ClientErrors(properties)
        self._properties = {**properties, "error_cb": self.errors}
        self._client = self._new_client()

    def _new_client(self) -> AdminClient:
        self._renewed_at = monotonic()
        return AdminClient(dict(self._properties), logger=self.errors)

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """See the port."""
        wanted = list(names)
        if not wanted:
            return {}
        found = {}
        futures = self._asked(
            lambda: self._client.describe_topics(
                TopicCollection(wanted), include_authorized_operations=True, **self._limits()
            )
        )
        for name, future in futures.items():
            described = self._result(
                future, "describing it", KafkaError.UNKNOWN_TOPIC_OR_PART, needs=("topic", name, "Describe")
            )
            if described is not None:
                allowed = _allowed(described.authorized_operations)
                found[name] = TopicInfo(len(described.partitions), str(described.topic_id), allowed)
        return found

    def create(self, topics: Sequence[NewTopic]) -> None:
        """See the port."""
        if not topics:
            return
        requests = [
            ClientTopic(
                topic.name,
                num_partitions=-1 if topic.partitions is None else topic.partitions,
                replication_factor=-1 if topic.replication_factor is None else topic.replication_factor,
                config=dict(topic.config),
            )
            for topic in topics
        ]
        futures = self._asked(lambda: self._client.create_topics(requests, **self._limits()))
        for name, future in futures.items():
            self._result(future, "creating it", KafkaError.TOPIC_ALREADY_EXISTS, needs=("topic", name, "Create"))
        wanted = {topic.name for topic in topics}
        self._until(lambda: self._led(wanted), f"topics {sorted(wanted)} did not appear")

    def _led(self, names: set[str]) -> bool:
        """True when all of ``names`` exist and each of their partitions has a leader."""
        futures = self._asked(lambda: self._client.describe_topics(TopicCollection(list(names)), **self._limits()))
        for name, future in futures.items():
            described = self._result(
                future, "describing it", KafkaError.UNKNOWN_TOPIC_OR_PART, needs=("topic", name, "Describe")
            )
            if described is None or any(partition.leader is None for partition in described.partitions):
                return False
        return True

    def delete(self, names: Sequence[str]) -> None:
        """See the port."""
        if not names:
            return
        futures = self._asked(lambda: self._client.delete_topics(list(names), **self._limits()))
        for name, future in futures.items():
            self._result(future, "deleting it", KafkaError.UNKNOWN_TOPIC_OR_PART, needs=("topic", name, "Delete"))
        self._until(lambda: not self.topics(names), f"topics {sorted(names)} did not disappear")

    def config(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """See the port."""
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        if not resources:
            return {}
        found = {}
        futures = self._asked(lambda: self._client.describe_configs(resources, **self._limits()))
        for resource, future in futures.items():
            doing = f"asking for the configuration of topic {resource.name!r}"
            hidden = KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART
            entries = self._result(future, doing, *hidden)
            if entries is not None:
                found[resource.name] = {key: entry.value for key, entry in entries.items() if entry.value is not None}
        return found

    def log_ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See the port."""
        return self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def log_starts(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See the port."""
        return self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def _offsets(self, partitions: Iterable[TopicPartition], which: Any) -> dict[TopicPartition, int]:
        request = {ClientPartition(*partition): which for partition in partitions}
        if not request:
            return {}
        futures = self._asked(
            lambda: self._client.list_offsets(
                request, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=self._timeout_s
            )
        )
        found = {}
        for partition, future in futures.items():
            answer = self._result(future, "asking for offsets", *GONE, needs=("topic", partition.topic, "Describe"))
            if answer is not None:
                found[TopicPartition(partition.topic, partition.partition)] = answer.offset
        if len(found) < len(request) and monotonic() - self._renewed_at >= RENEWAL_S:
            # A client that was told so while a broker came back can go on saying so.
            self._client = self._new_client()
        return found

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """See the port."""
        request = [ClientPartition(topic, partition, offset) for (topic, partition), offset in before.items()]
        if not request:
            return
        futures = self._asked(lambda: self._client.delete_records(request, **self._limits()))
        for partition, future in futures.items():
            self._result(
                future, "deleting records", KafkaError.OFFSET_OUT_OF_RANGE, needs=("topic", partition.topic, "Delete")
            )

    def members(self, group: str) -> list[GroupMember]:
        """See the port. Of groups of the protocol ``consumer`` none are seen.

        Not by ``describe_consumer_groups``: when the connection to the coordinator is lost in the middle of it,
        librdkafka (2.16 too) ends the whole process with a failed assertion, so that an outage would kill every worker.
        """
        try:
            found: Any = self._client.list_groups(group, timeout=self._timeout_s)
        except KafkaException as error:
            raise general(error) from error
        for described in found:
            if described.error is not None and described.error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise denied(text(described.error), "group", group, "Describe")
        return [
            GroupMember(member.id, member.client_id, member.client_host.removeprefix("/"), assigned(member.assignment))
            for described in found
            if described.id == group
            for member in described.members
        ]

    def delete_group(self, group: str) -> None:
        """Delete a consumer group with its offsets; a missing one is ignored.

        Raises:
            PortError: it still has members.
        """
        futures = self._asked(lambda: self._client.delete_consumer_groups([group], **self._limits()))
        self._result(futures[group], "deleting it", KafkaError.GROUP_ID_NOT_FOUND, needs=("group", group, "Delete"))

    def grant(self, rights: Iterable[tuple[Resource, str, str, bool]], principal: str, host: str = "*") -> None:
        """Allow operations; what is allowed already is left as it is.

        Args:
            rights: kind and name of the resource, operation as ``kafka-acls.sh`` spells it, and whether the name is
                only the beginning of names.
            principal: as in ``User:name``.
            host: an address, or ``*``.

        Raises:
            NotAuthorized: this principal has no ALTER on the cluster.
            Unavailable: no broker answers.
        """
        bindings = [
            AclBinding(
                RESOURCE_TYPES[resource],
                name,
                ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
                principal,
                host,
                OPERATIONS[operation],
                AclPermissionType.ALLOW,
            )
            for resource, name, operation, prefixed in rights
        ]
        futures = self._asked(lambda: self._client.create_acls(bindings, **self._limits()))
        for future in futures.values():
            self._result(future, "granting rights", needs=("cluster", "", "Alter"))

    def topic_names(self) -> list[str]:
        """Every topic of the cluster that may be seen."""
        begun = monotonic()
        deadline = begun + self._timeout_s
        while True:
            try:
                # In short calls: between two the client says why there is no answer.
                return sorted(self._client.list_topics(timeout=min(LISTEN_S, self._timeout_s)).topics)
            except KafkaException as error:
                self._hear(begun)
                mapped = general(error)
                if not isinstance(mapped, Unavailable) or monotonic() >= deadline or self._told_to_stop():
                    raise mapped from error

    def close(self) -> None:
        """The client has nothing to close; its threads end with it."""

    def _limits(self) -> dict[str, float]:
        return {"request_timeout": self._timeout_s}

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except KafkaException as error:
            raise general(error) from error

    def _result(self, future: Future[Any], doing: str, *ignored: int, needs: Right | None = None) -> Any:
        """What the broker answered; None for an error among ``ignored``. ``needs``: the right without which it is
        denied."""
        begun = monotonic()
        try:
            answer = self._awaited(future, begun)
        except KafkaException as error:
            if kafka_error(error).code() in ignored:
                return None
            if needs is not None and kafka_error(error).code() in AUTHORIZATION:
                raise denied(f"{doing}: {text(kafka_error(error))}", *needs) from error
            mapped = general(error)
            if isinstance(mapped, Unavailable):
                self._hear()
                # After a broker's restart the client can go on for ever with the leaders that it knew before.
                self._client = self._new_client()
                mapped = self.errors.reason(begun) or mapped
            raise type(mapped)(f"{_where(needs)}{doing}: {mapped}") from error
        except TimeoutError:
            self._client = self._new_client()
            reason = self.errors.reason(begun) or Unavailable(f"no answer within {self._timeout_s:.0f} s")
            raise type(reason)(f"{_where(needs)}{doing}: {reason}") from None
        self.errors.answered()
        return answer

    def _awaited(self, future: Future[Any], begun: float) -> Any:
        deadline = begun + self._timeout_s + 1
        while True:
            try:
                return future.result(min(STOP_POLL_S, max(0.0, deadline - monotonic())))
            except TimeoutError:
                self._hear(begun)
                if self._told_to_stop() or monotonic() >= deadline:
                    raise

    def _hear(self, begun: float | None = None) -> None:
        """Let the client say what it has to say about its connections.

        Raises:
            LoginFailed: no answer will ever come.
            Unavailable: none will come soon.
        """
        self._client.poll(0)
        self.errors.check(begun)

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = monotonic() + self._timeout_s
        while not condition():
            if monotonic() > deadline:
                raise PortError(f"{otherwise} within {self._timeout_s:.0f} s")
            sleep(VISIBLE_POLL_S)


def _allowed(operations: Iterable[AclOperation] | None) -> frozenset[str] | None:
    """By Kafka's own names; None where the broker does not say."""
    found = set(operations or ())
    return frozenset(name for name, operation in OPERATIONS.items() if operation in found) if found else None


def _where(needs: Right | None) -> str:
    return "" if needs is None else f"{needs[0]} {needs[1]!r}, "


def assigned(data: bytes | None) -> frozenset[TopicPartition]:
    """Partitions in a member's assignment, in the format of Kafka's consumers; none where it cannot be read.

    >>> one_topic = b"\\x00\\x01" + bytes(3) + b"\\x01" + b"\\x00\\x02in" + bytes(3) + b"\\x02"
    >>> sorted(partition for _, partition in assigned(one_topic + bytes(4) + bytes(3) + b"\\x05"))
    [0, 5]
    >>> assigned(b"")
    frozenset()
    """
    data, found = data or b"", []
    try:
        _, topics = _ASSIGNMENT.unpack_from(data)
        at = _ASSIGNMENT.size
        for _ in range(topics):
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + length
            name = data[at - length : at].decode()
            (count,) = _COUNT.unpack_from(data, at)
            at += _COUNT.size * (1 + count)
            numbers = _COUNT.iter_unpack(data[at - _COUNT.size * count : at])
            found += [TopicPartition(name, number) for (number,) in numbers]
    except (struct.error, UnicodeDecodeError):
        return frozenset()
    return frozenset(found)
