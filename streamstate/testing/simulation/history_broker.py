"""A broker that keeps deleted records for the checker.

Rule of this module: the workers see a record as deleted; the checker still reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamstate.engine.ports import TopicPartition
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.log import MemoryMessage

__all__ = ["HistoryBroker"]


class HistoryBroker(MemoryBroker):
    """Keep the committed records that ``delete_records`` deletes."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.deleted: dict[TopicPartition, list[MemoryMessage]] = {}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """See ``MemoryBroker``."""
        for partition, offset in before.items():
            log = self.log(partition)
            if log is not None and offset > log.start:
                gone = [record for record in log.read(log.start, log.end)[0] if record.offset() < offset]
                self.deleted.setdefault(partition, []).extend(gone)
        super().delete_records(before)

    def history(self, topic: str, partition: int) -> list[MemoryMessage]:
        """Every committed record that was ever in the partition, compacted ones left out."""
        return [*self.deleted.get(TopicPartition(topic, partition), ()), *self.read(topic, partition)]
