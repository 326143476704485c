"""A driver for topologies; and a Kafka broker in memory, the engine's ports on it, and a clock that stands still.

Rule of this package: deterministic, single-threaded, no real time. Whatever happens was asked for by a test.

>>> broker = MemoryBroker(ManualClock())
>>> broker.create_topic("in", partitions=2)
>>> broker.create_topic("out")
>>> broker.pipe("in", [(b"a", b"1"), (b"b", b"2")])
>>> producer = MemoryProducer(broker, "transactional-id")
>>> producer.init(1_000)
>>> producer.begin()
>>> producer.send([("out", b"value", b"key", -1, None, None, None)])
>>> producer.flush(1_000)
>>> broker.pairs("out")
[]
>>> producer.commit(1_000)
>>> broker.pairs("out")
[(b'key', b'value')]
"""

from __future__ import annotations

from streamstate.testing.driver.driver import StateDisk, TopologyTestDriver
from streamstate.testing.driver.topics import InputTopic, OutputTopic, Record
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.application import Disk, MemoryApplication
from streamstate.testing.memory_broker.background import MemoryBackground
from streamstate.testing.memory_broker.broker import MemoryBroker, RecordRefused
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.consumer import MemoryConsumer, MemoryRestoreConsumer
from streamstate.testing.memory_broker.producer import MemoryProducer

__all__ = [
    "Disk",
    "InputTopic",
    "ManualClock",
    "MemoryAdmin",
    "MemoryApplication",
    "MemoryBackground",
    "MemoryBroker",
    "MemoryConsumer",
    "MemoryProducer",
    "MemoryRestoreConsumer",
    "OutputTopic",
    "Record",
    "RecordRefused",
    "StateDisk",
    "TopologyTestDriver",
]
