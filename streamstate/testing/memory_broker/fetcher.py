"""Positions of a consumer and what it reads at them.

Rule of this module: positions move only when the caller has the records.
"""

from __future__ import annotations

from collections.abc import Collection

from streamstate.engine.ports import OutOfRange, TopicPartition
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.log import MemoryMessage

__all__ = ["Fetcher"]


class Fetcher:
    """Reads committed records of several partitions, a different one first each time.

    Attributes:
        positions: next offset of each partition that is read.
        seen_ends: last stable offset of each partition when it was last read.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._turn = 0
        self.positions: dict[TopicPartition, int] = {}
        self.seen_ends: dict[TopicPartition, int] = {}

    def fetch(
        self, max_records: int, paused: Collection[TopicPartition] = ()
    ) -> tuple[list[MemoryMessage], dict[TopicPartition, int]]:
        """Records and the positions behind them, to be given to ``accept``.

        Raises:
            OutOfRange: a position is below the log's start or behind its end.
        """
        if self._broker.empty_fetches > 0:
            self._broker.empty_fetches -= 1
            return [], {}
        partitions = sorted(partition for partition in self.positions if partition not in paused)
        for partition in partitions:
            log, position = self._broker.log(partition), self.positions[partition]
            if log is not None and not log.start <= position <= log.end:
                raise OutOfRange(
                    f"{partition.topic}[{partition.partition}]: offset {position} is outside the log "
                    f"({log.start} to {log.end})",
                    partition,
                )
        records: list[MemoryMessage] = []
        moved: dict[TopicPartition, int] = {}
        first = self._turn % len(partitions) if partitions else 0
        for partition in partitions[first:] + partitions[:first]:
            log = self._broker.log(partition)
            if log is None:
                continue
            self.seen_ends[partition] = log.last_stable
            if len(records) < max_records:
                found, moved[partition] = log.read(self.positions[partition], max_records - len(records))
                records += found
        return records, moved

    def accept(self, moved: dict[TopicPartition, int]) -> None:
        """The caller has the records: move on."""
        self.positions.update(moved)
        self._turn += 1

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Read these no longer."""
        for partition in partitions:
            self.positions.pop(partition, None)
            self.seen_ends.pop(partition, None)
