"""A Kafka broker in memory, the engine's ports on it, and a clock that stands still.

Rule of this package: deterministic, single-threaded, no real time. Whatever happens was asked for by a test.
"""

from __future__ import annotations

from streamstate.testing.adapters import MemoryAdmin, MemoryConsumer, MemoryProducer, MemoryRestoreConsumer
from streamstate.testing.broker import MemoryBroker, RecordRefused
from streamstate.testing.clock import ManualClock

__all__ = [
    "ManualClock",
    "MemoryAdmin",
    "MemoryBroker",
    "MemoryConsumer",
    "MemoryProducer",
    "MemoryRestoreConsumer",
    "RecordRefused",
]
