"""The ports on the in-memory broker, in one place.

Rule of this module: every class here implements its port exactly; the contract suite holds it and the class on
the real broker to the same tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from streamstate.engine.ports import GroupMember, NewTopic, PortError, TopicInfo, TopicPartition
from streamstate.errors import TopologyError
from streamstate.graph.names import checked
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.client import Client, port
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.consumer import MemoryConsumer, MemoryRestoreConsumer
from streamstate.testing.memory_broker.log import PartitionLog
from streamstate.testing.memory_broker.producer import MemoryProducer

__all__ = ["ManualClock", "MemoryAdmin", "MemoryConsumer", "MemoryProducer", "MemoryRestoreConsumer"]


class MemoryAdmin(Client):
    """Implements the port ``Admin``.

    Args:
        broker: the broker.
        client_id: the actor in the broker's hook.
    """

    kind = "admin"

    def __init__(self, broker: MemoryBroker, *, client_id: str = "admin") -> None:
        super().__init__(broker, client_id)

    @port
    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """See the port."""
        self.broker.require()
        known = self.broker.topics()
        return {name: TopicInfo(len(known[name].logs), known[name].topic_id) for name in names if name in known}

    @port
    def create(self, topics: Sequence[NewTopic]) -> None:
        """See the port."""
        self.broker.require()
        known = self.broker.topics()
        for topic in topics:
            try:
                checked(topic.name, "topic")
            except TopologyError as error:
                raise PortError(f"INVALID_TOPIC_EXCEPTION: {error}") from error
            if topic.name not in known:
                self.broker.create_topic(topic.name, topic.partitions, topic.config)

    @port
    def delete(self, names: Sequence[str]) -> None:
        """See the port."""
        self.broker.require()
        for name in names:
            self.broker.delete_topic(name)

    @port
    def config(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """See the port."""
        self.broker.require()
        known = self.broker.topics()
        return {name: dict(known[name].config) for name in names if name in known}

    @port
    def log_ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See the port. Partitions that do not exist are left out."""
        return self._offsets(partitions, lambda log: log.end)

    @port
    def log_starts(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See the port. Partitions that do not exist are left out."""
        return self._offsets(partitions, lambda log: log.start)

    @port
    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """See the port.

        Raises:
            OutOfRange: an offset lies behind the log's end.
        """
        self.broker.require()
        self.broker.delete_records(before)

    @port
    def members(self, group: str) -> list[GroupMember]:
        """See the port."""
        self.broker.require()
        return self.broker.members(group)

    @port
    def close(self) -> None:
        """See the port."""

    def _offsets(
        self, partitions: Iterable[TopicPartition], offset: Callable[[PartitionLog], int]
    ) -> dict[TopicPartition, int]:
        self.broker.require()
        logs = {partition: self.broker.log(partition) for partition in partitions}
        return {partition: offset(log) for partition, log in logs.items() if log is not None}
