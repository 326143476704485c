"""The records that contenders read.

Rule of this module: the same seed gives the same records, so that what must come out is computed without reading
them back, and a shorter input is the beginning of a longer one.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Producer

from streamstate.engine.ports import NewTopic
from streamstate.kafka import KafkaAdmin

__all__ = ["GROUPS", "KEYS", "PARTITIONS", "Event", "Inputs", "events", "key_name", "table_rows"]

PARTITIONS = 4
KEYS = 100_000
GROUPS = 1_000
# Without it a topic is emptied as soon as its segments roll: by the records' time, which is not today's.
KEPT = {"retention.ms": "-1"}
# Event time begins this long ago: in the past for every length of input, yet recent enough for the changelogs of
# windowed stores that Kafka Streams deletes by time.
AGE_MS = 2 * 3_600_000
MINUTE_MS = 60_000

_SEED = 7
_PRODUCER = {
    "linger.ms": 50,
    "log_level": 2,
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 1_000_000,
    "enable.idempotence": True,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One input record: about 60 bytes of JSON.

    Attributes:
        id: 0, 1, 2, ... in the order of production.
        key: the record's key.
        group: what the repartitioning workload groups by.
        amount: 0 to 999.
    """

    id: int
    key: str
    group: str
    amount: int

    def json(self) -> bytes:
        """The value as it is written."""
        return b'{"id":%d,"group":"%b","amount":%d,"note":"abcdefgh"}' % (self.id, self.group.encode(), self.amount)


def key_name(number: int) -> str:
    """The key of this number; 0 is the most frequent one."""
    return f"key-{number}"


def events(count: int, seed: int = _SEED) -> Iterator[Event]:
    """The first ``count`` records.

    Keys follow a power law: the density falls with the number to the power of -2/3, so that the most frequent of
    `KEYS` keys has about 2 % of the records.
    """
    chance = random.Random(seed).random
    for number in range(count):
        drawn = chance()
        yield Event(number, key_name(int(KEYS * drawn**3)), f"g-{int(GROUPS * chance() ** 2)}", int(1_000 * chance()))


def table_rows(count: int = KEYS) -> Iterator[tuple[str, bytes]]:
    """The table side of the stream-table join: key and value of every key."""
    for number in range(count):
        yield key_name(number), b'{"name":"customer %d","level":%d}' % (number, number % 7)


@dataclass(slots=True)
class Inputs:
    """Topics that hold the input, each filled when it is first asked for.

    Attributes:
        servers: the broker.
        begin_ms: event time of record 0, a whole minute.
        prefix: of all that this suite creates at the broker, where earlier ones may have left theirs.
    """

    servers: str
    begin_ms: int
    prefix: str
    _filled: dict[str, int]

    @classmethod
    def at(cls, servers: str) -> Inputs:
        """Nothing is filled yet; event time begins `AGE_MS` ago."""
        now = time.time_ns() // 1_000_000
        return cls(servers, (now - AGE_MS) // MINUTE_MS * MINUTE_MS, f"bench-{secrets.token_hex(4)}", {})

    def topics(self, roles: tuple[str, ...], records: int) -> dict[str, str]:
        """The topic of each role, filled with its share of ``records`` records.

        Roles: ``events``; ``table``, of which the rows come on top and before the events in event time; ``left`` and
        ``right``, which halve the records between them in alternation.
        """
        found = {}
        for role in roles:
            name = f"{self.prefix}.{role}" if role == "table" else f"{self.prefix}.{role}-{records}"
            if name not in self._filled:
                KafkaAdmin({"bootstrap.servers": self.servers}).create([NewTopic(name, PARTITIONS, None, KEPT)])
                self._filled[name] = self._fill(name, role, records)
            found[role] = name
        return found

    def size(self, topics: dict[str, str]) -> int:
        """Records in these topics together."""
        return sum(self._filled[name] for name in topics.values())

    def _fill(self, topic: str, role: str, records: int) -> int:
        producer = Producer({"bootstrap.servers": self.servers, **_PRODUCER})
        written = 0
        for key, value, timestamp in self._records(role, records):
            while True:
                try:
                    producer.produce(topic, value, key, -1, None, None, timestamp)
                    break
                except BufferError:
                    producer.poll(0.1)
            written += 1
        left = producer.flush(60)
        if left:
            raise RuntimeError(f"topic {topic}: {left} input records could not be written")
        return written

    def _records(self, role: str, records: int) -> Iterator[tuple[str, bytes, int]]:
        if role == "table":
            # All before the first event: whoever reads by event time has the whole table when the stream begins.
            for key, value in table_rows():
                yield key, value, self.begin_ms - MINUTE_MS
            return
        parity = {"events": None, "left": 0, "right": 1}[role]
        for event in events(records):
            if parity is None or event.id % 2 == parity:
                yield event.key, event.json(), self.begin_ms + event.id
