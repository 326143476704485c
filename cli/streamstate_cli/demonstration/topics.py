"""What the demonstration asks of the broker: topics made, how far the group is, what the output topics hold.

Rule of this module: answers come from Kafka, never from what a worker says of itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streamstate.engine.ports import NewTopic, PortError, Retriable
from streamstate.engine.ports import TopicPartition as Partition
from streamstate.errors import BrokerUnavailable
from streamstate.kafka import KafkaAdmin
from streamstate.kafka.errors import general
from streamstate_cli.demonstration.proof import GROUPINGS, Output

__all__ = ["APPLICATION", "SOURCE", "Cluster", "Progress"]

T = TypeVar("T")

log = logging.getLogger("streamstate.demo")

APPLICATION = "flight-delays"
SOURCE = "flights"
PARTITIONS = 4
REPARTITION = tuple(f"{APPLICATION}-{store}-repartition" for store in ("by-carrier", "by-origin"))
CHANGELOGS = tuple(f"{APPLICATION}-{store}-changelog" for store in ("by-carrier", "by-origin"))
# The flights are of 2013: by the default retention of seven days they would be deleted as soon as they are there,
# and by the default age of a segment a new one would begin with every week of flights.
KEEP = {"retention.ms": "-1", "segment.ms": str((1 << 63) - 1)}
ANSWER_S = 30
# A request that waits for a coordinator which is not there yet is better made again.
ASK_S = 3
RETRY_S = 0.1
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the group is, by its committed offsets.

    Attributes:
        processed: flights of the source topic that are committed as processed.
        aggregated: records of the repartition topics that are committed as processed, two per flight.
        lag: offsets between what is committed and the ends of the source and the repartition topics.
        gaps: by partition with a lag, the committed offset and the end.
    """

    processed: int
    aggregated: int
    lag: int
    gaps: dict[Partition, tuple[int, int]]


class Cluster:
    """The broker, as the demonstration uses it.

    Args:
        bootstrap_servers: its address.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._admin = KafkaAdmin({"bootstrap.servers": bootstrap_servers})
        # It asks in the group's name and never joins. The offsets of an open transaction do not count.
        self._member = Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": APPLICATION, "isolation.level": "read_uncommitted"},
            logger=log,
        )

    def close(self) -> None:
        """Stop asking."""
        self._member.close()

    def create_topics(self) -> None:
        """Create the source and the outputs; the application makes its internal topics itself."""
        self._admin.create([NewTopic(topic, PARTITIONS, config=KEEP) for topic in (SOURCE, *GROUPINGS)])

    def progress(self) -> Progress:
        """Ask how far the group is."""
        return self._patiently(self._progress)

    def _progress(self) -> Progress:
        partitions = self._partitions([SOURCE, *REPARTITION])
        # The committed offsets first: the ends only grow, so a lag of 0 is never an illusion.
        committed = self._committed(partitions)
        ends = self._admin.log_ends(partitions)
        gaps = {p: (committed.get(p, 0), end) for p, end in ends.items() if committed.get(p, 0) < end}
        processed = sum(offset for partition, offset in committed.items() if partition.topic == SOURCE)
        aggregated = sum(committed.values()) - processed
        return Progress(processed, aggregated, sum(end - offset for offset, end in gaps.values()), gaps)

    def drained(self, progress: Progress) -> bool:
        """Whether nothing is left to process.

        The committed offset is that of the last record plus one; the transaction's marker lies behind it. So an
        offset short of the end means something only if there is a record.
        """
        if any(partition.topic == SOURCE for partition in progress.gaps):
            return False
        if len(self._patiently(lambda: self._admin.topics(REPARTITION))) < len(REPARTITION):
            return False
        ends = {partition: end for partition, (_, end) in progress.gaps.items()}
        starts = {partition: offset for partition, (offset, _) in progress.gaps.items()}
        for _ in self._read(starts, ends):
            return False
        return True

    def changelog_records(self) -> int:
        """Offsets in the changelogs: about what a restore from nothing would replay."""
        return sum(self._patiently(lambda: self._admin.log_ends(self._partitions(CHANGELOGS))).values())

    def outputs(self, topic: str) -> Iterator[Output]:
        """Every committed record of an output topic, from its start to its end."""
        ends = self._patiently(lambda: self._admin.log_ends(self._partitions([topic])))
        return self._read(dict.fromkeys(ends, 0), ends)

    def _partitions(self, topics: Iterable[str]) -> list[Partition]:
        """Those of the topics that exist."""
        existing = self._admin.topics(topics)
        return [Partition(topic, number) for topic, info in existing.items() for number in range(info.partitions)]

    def _patiently(self, call: Callable[[], T]) -> T:
        """Ask until there is an answer: leaders and coordinators of new topics are not there at once.

        Raises:
            BrokerUnavailable: none came in time, or an error that waiting does not mend.
        """
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                return call()
            except PortError as error:
                if not isinstance(error, Retriable) or time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"The demonstration's broker does not answer as it should: {error}"
                    ) from error
                time.sleep(RETRY_S)

    def _committed(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        request = [TopicPartition(*partition) for partition in partitions]
        try:
            answer = self._member.committed(request, timeout=ASK_S) if request else []
        except KafkaException as error:
            raise general(error) from error
        return {Partition(p.topic, p.partition): max(0, p.offset) for p in answer if p.error is None}

    def _read(self, starts: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[Output]:
        """Committed records from ``starts`` up to ``ends``.

        Raises:
            BrokerUnavailable: an end was not reached, although nothing came any more.
        """
        # A partition without anything to read has no position either.
        starts = {partition: offset for partition, offset in starts.items() if offset < ends[partition]}
        if not starts:
            return
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "flight-delays-proof",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 10,
            },
            logger=log,
        )
        try:
            consumer.assign([TopicPartition(*partition, offset) for partition, offset in starts.items()])
            deadline = time.monotonic() + ANSWER_S
            while not _reached(consumer, {partition: ends[partition] for partition in starts}):
                for message in consumer.consume(BATCH, 0.1):
                    error = message.error()
                    if error is not None:
                        raise BrokerUnavailable(f"The output cannot be read: {KafkaException(error)}")
                    deadline = time.monotonic() + ANSWER_S
                    yield Output(
                        message.partition() or 0,
                        message.offset() or 0,
                        message.timestamp()[1],
                        message.key(),
                        message.value(),
                    )
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"The ends {dict(ends)} were not reached within {ANSWER_S} s: a transaction is still open"
                    )
        finally:
            consumer.close()


def _reached(consumer: Consumer, ends: Mapping[Partition, int]) -> bool:
    """Whether the consumer has passed every end; markers and aborted records count as passed."""
    positions = consumer.position([TopicPartition(*partition) for partition in ends])
    return all(position.offset >= ends[Partition(position.topic, position.partition)] for position in positions)
