"""How far a contender is, seen from the broker.

Rule of this module: progress is what its consumer group has committed, for every contender alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.figures import Sample
from benchmarks.inputs import PARTITIONS
from benchmarks.process import ContenderFailed, Team
from streamstate.engine.ports import TopicPartition as Partition
from streamstate.kafka import KafkaAdmin

__all__ = ["Observer", "internal_topics"]

_PAUSE_S = 0.02
_TAIL = 16
_TAIL_S = 30
# A contender that commits nothing for this long hangs; starting up is within it.
_STALLED_S = 120


class Observer:
    """Watches one consumer group.

    Args:
        servers: the broker.
        group: the consumer group.
        inputs: topics whose offsets count as progress.
        repartitions: every input record goes through a repartition topic: it counts when it is committed there, too.
    """

    def __init__(self, servers: str, group: str, inputs: Mapping[str, str], repartitions: bool = False) -> None:
        self._servers = servers
        self._group = group
        self._trouble = ""
        self._client = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        # It asks and never joins. Not by the admin client's list_consumer_group_offsets: confluent-kafka 2.16 crashes
        # when that is called over and over for a group that does not exist yet. Pending commits are not waited for.
        self._reader = Consumer({"bootstrap.servers": servers, "group.id": group, "isolation.level": "read_uncommitted",
                                 "enable.auto.commit": False, "log_level": 0})  # fmt: skip
        self._admin = KafkaAdmin({"bootstrap.servers": servers})
        self._repartitions = repartitions
        self._second: list[tuple[str, int]] = []
        self._inputs = [(topic, number) for topic in inputs.values() for number in range(PARTITIONS)]
        self.total = sum(self._ends(self._inputs).values())

    def _ends(self, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        found = self._admin.log_ends([Partition(*partition) for partition in partitions])
        return {(partition.topic, partition.partition): end for partition, end in found.items()}

    def committed(self, partitions: list[tuple[str, int]] | None = None) -> dict[tuple[str, int], int]:
        """Committed offsets, 0 where there is none yet; empty when the broker cannot tell just now."""
        asked = self._inputs if partitions is None else partitions
        try:
            answer = self._reader.committed([TopicPartition(*partition) for partition in asked], timeout=10)
        except KafkaException as error:
            # While the group's coordinator is being found, or busy; a contender of which nothing is heard is given up.
            self._trouble = f"; the broker last answered: {error.args[0].str()}"
            return {}
        self._trouble = ""
        return {(found.topic, found.partition): max(found.offset, 0) for found in answer}

    def follow(self, team: Team, limit_s: float) -> list[Sample]:
        """Until all input is committed, and all repartitioned records after it.

        Returns:
            One sample per commit seen.

        Raises:
            ContenderFailed: a process ended, nothing was committed for long, or the time is over.
        """
        samples: list[Sample] = []
        started = moved_at = time.monotonic()
        inner: dict[tuple[str, int], int] | None = None
        moved = -1
        while True:
            done = sum(self.committed().values())
            through = min(done, self._through()) if self._repartitions else done
            if through and (not samples or through > samples[-1].committed):
                samples.append(Sample(time.monotonic(), through, team.sample()))
            behind = 0
            if done >= self.total:
                # Committed together with the input that they came from, so no more are added from here on.
                inner = self._repartitioned() if inner is None else inner
                offsets = self.committed(list(inner)) if inner else {}
                behind = sum(max(0, end - offsets.get(partition, 0)) for partition, end in inner.items())
                if not behind:
                    break
            now = time.monotonic()
            if done - behind != moved:
                moved, moved_at = done - behind, now
            team.check()
            if now > min(moved_at + _STALLED_S, started + limit_s):
                raise ContenderFailed(
                    f"given up after {now - started:.0f} s, {now - moved_at:.0f} s after the last commit: "
                    f"{done:,} of {self.total:,} input records were committed, {behind:,} in repartition topics "
                    f"were left{self._trouble}\n{team.quoted()}"
                )
            time.sleep(_PAUSE_S)
        if inner:
            # The end of the work, not the end of its first stage.
            if samples and samples[-1].committed >= self.total:
                samples.pop()
            samples.append(Sample(time.monotonic(), self.total, team.sample()))
        return samples

    def _through(self) -> int:
        """Records that are committed as read from repartition topics; markers of transactions are few beside them."""
        if not self._second:
            self._second = [(topic, number) for topic in self._repartition_topics() for number in range(PARTITIONS)]
        return sum(self.committed(self._second).values()) if self._second else 0

    def close(self) -> None:
        """Stop watching."""
        self._reader.close()

    def _repartitioned(self) -> dict[tuple[str, int], int]:
        """For each partition of a repartition topic with records, the offset behind the last of them."""
        partitions = [(topic, number) for topic in self._repartition_topics() for number in range(PARTITIONS)]
        return {partition: end for partition in partitions if (end := self._last_record(partition)) > 0}

    def _repartition_topics(self) -> list[str]:
        # The group's own name may contain the word, and so may a changelog's.
        names = {topic: topic.replace(self._group, "") for topic in internal_topics(self._client, self._group)}
        return [topic for topic, rest in names.items() if "repartition" in rest and "changelog" not in rest]

    def _last_record(self, partition: tuple[str, int]) -> int:
        """Behind the last record of a log. Transaction markers follow it, which nobody commits an offset for."""
        end = self._ends([partition])[partition]
        reader = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": f"{self._group}-tail",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        found = 0
        tail = _TAIL
        deadline = time.monotonic() + _TAIL_S
        try:
            while not found and end:
                start = max(0, end - tail)
                reader.assign([TopicPartition(*partition, start)])
                position = start
                while position < end:
                    for message in reader.consume(1_000, 0.1):
                        if message.error() is None:
                            found = max(found, (message.offset() or 0) + 1)
                    position = max(position, reader.position([TopicPartition(*partition)])[0].offset)
                    if time.monotonic() > deadline:
                        raise ContenderFailed(f"the end of {partition[0]}, partition {partition[1]}, cannot be read")
                if start == 0:
                    break
                tail *= 16
        finally:
            reader.close()
        return found


def internal_topics(client: AdminClient, group: str) -> list[str]:
    """Topics that an application made for itself: its id is part of their names."""
    return sorted(name for name in client.list_topics(timeout=10).topics if group in name)
