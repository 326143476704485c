"""One partition's log: records, control markers, the last stable offset, retention and compaction.

Rule of this module: offsets are given once and never again. What is removed leaves a gap, and every reader
gets past gaps by position.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

__all__ = ["MemoryMessage", "PartitionLog", "check_types"]

Headers = list[tuple[str, bytes | None]]


def check_types(
    topic: object, key: object, value: object, partition: object, timestamp: object, headers: object
) -> None:
    """Refuse what a real client refuses before it sends anything, and text, which it would encode without a word.

    Raises:
        TypeError: a part of the record has a type that the client does not take.
        OverflowError: the timestamp or the partition is beyond what the protocol has room for.

    >>> check_types("words", b"a", None, -1, 5, [("trace", b"1")])
    >>> check_types("words", b"a", None, -1, 5.0, None)
    Traceback (most recent call last):
    TypeError: the client takes no timestamp of type float: 5.0
    """
    if type(topic) is not str:
        raise TypeError(f"the client takes no topic of type {type(topic).__name__}: {topic!r}")
    for part, data in (("key", key), ("value", value)):
        if data is not None and type(data) is not bytes:
            raise TypeError(f"the client takes no {part} of type {type(data).__name__}: {data!r}")
    for part, number, bits in (("partition", partition, 31), ("timestamp", timestamp, 63)):
        if number is None and part == "timestamp":
            continue
        if type(number) is not int:
            raise TypeError(f"the client takes no {part} of type {type(number).__name__}: {number!r}")
        if not -1 << bits <= number < 1 << bits:
            raise OverflowError(f"the {part} {number} does not fit into {bits + 1} bits")
    if headers is None:
        return
    if not isinstance(headers, list):
        raise TypeError(f"the client takes no headers of type {type(headers).__name__}: {headers!r}")
    for pair in headers:
        if type(pair) is not tuple or len(pair) != 2 or type(pair[0]) is not str:
            raise TypeError(f"the client takes headers as pairs of a str and bytes, not {pair!r}")
        pair[0].encode()
        if pair[1] is not None and type(pair[1]) is not bytes:
            raise TypeError(f"the client takes no header's value of type {type(pair[1]).__name__}: {pair!r}")


class MemoryMessage:
    """A record of the in-memory broker; implements the port ``Message``.

    Attributes:
        producer_id: of the transaction it belongs to; -1 outside transactions.
        marker: ``"commit"`` or ``"abort"`` for a control record, which no consumer ever sees.
        aborted: its transaction was aborted.
    """

    __slots__ = (
        "_headers",
        "_key",
        "_offset",
        "_partition",
        "_timestamp",
        "_timestamp_kind",
        "_topic",
        "_value",
        "aborted",
        "marker",
        "producer_id",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        timestamp_kind: int = 1,
        headers: Headers | None = None,
        producer_id: int = -1,
        marker: str = "",
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._offset = offset
        self._key = key
        self._value = value
        self._timestamp = timestamp
        self._timestamp_kind = timestamp_kind
        self._headers = headers
        self.producer_id = producer_id
        self.marker = marker
        self.aborted = False

    def topic(self) -> str:
        """Topic it is in."""
        return self._topic

    def partition(self) -> int:
        """Partition it is in."""
        return self._partition

    def offset(self) -> int:
        """Its offset."""
        return self._offset

    def key(self) -> bytes | None:
        """Its key."""
        return self._key

    def value(self) -> bytes | None:
        """Its value; None is a tombstone."""
        return self._value

    def timestamp(self) -> tuple[int, int]:
        """(1 for the producer's time or 2 for the broker's, ms since 1970)."""
        return self._timestamp_kind, self._timestamp

    def headers(self) -> Headers | None:
        """Its headers; None where it has none."""
        return list(self._headers) if self._headers else None

    def __repr__(self) -> str:
        what = f"{self.marker} marker" if self.marker else f"{self._key!r}: {self._value!r}"
        return f"<{self._topic}[{self._partition}]@{self._offset} {what} t={self._timestamp}>"


class PartitionLog:
    """Records of one partition in the order of their offsets.

    Attributes:
        start: offset of the first record that may still be read.
        end: offset the next record will get.
    """

    __slots__ = ("_offsets", "_open", "_records", "end", "partition", "start", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.start = 0
        self.end = 0
        self._records: list[MemoryMessage] = []
        self._offsets: list[int] = []
        # Records of open transactions by producer id, oldest transaction first.
        self._open: dict[int, list[MemoryMessage]] = {}

    @property
    def last_stable(self) -> int:
        """First offset of the oldest open transaction, or the end: readers of committed records stop here."""
        for records in self._open.values():
            return max(self.start, records[0].offset())
        return self.end

    @property
    def open_producers(self) -> list[int]:
        """Producers with an open transaction here."""
        return list(self._open)

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        timestamp_kind: int,
        headers: Headers | None,
        producer_id: int = -1,
    ) -> int:
        """Add a record, of an open transaction when it has a producer id. Returns its offset."""
        record = MemoryMessage(
            self.topic, self.partition, self.end, key, value, timestamp, timestamp_kind, headers, producer_id
        )
        if producer_id >= 0:
            self._open.setdefault(producer_id, []).append(record)
        return self._add(record)

    def end_transaction(self, producer_id: int, commit: bool, timestamp: int) -> None:
        """Write the marker that ends the producer's transaction here, where one is open."""
        records = self._open.pop(producer_id, None)
        if records is None:
            return
        for record in records:
            record.aborted = not commit
        self._add(
            MemoryMessage(
                self.topic,
                self.partition,
                self.end,
                None,
                None,
                timestamp,
                producer_id=producer_id,
                marker="commit" if commit else "abort",
            )
        )

    def _add(self, record: MemoryMessage) -> int:
        self._records.append(record)
        self._offsets.append(self.end)
        self.end += 1
        return self.end - 1

    def read(self, position: int, max_records: int, committed: bool = True) -> tuple[list[MemoryMessage], int]:
        """Records from ``position`` on and the position behind them.

        The position passes markers, aborted records and gaps, up to the last stable offset or, when not only
        committed records are asked for, the end.
        """
        limit = self.last_stable if committed else self.end
        found: list[MemoryMessage] = []
        records = self._records
        for index in range(bisect_left(self._offsets, position), bisect_left(self._offsets, limit)):
            record = records[index]
            if record.marker or (committed and record.aborted):
                continue
            if len(found) == max_records:
                return found, record.offset()
            found.append(record)
        return found, max(position, limit)

    @property
    def newest(self) -> MemoryMessage:
        """The last entry, which may be a marker; there must be one."""
        return self._records[-1]

    def entries(self) -> Sequence[MemoryMessage]:
        """Everything still in the log, markers and aborted records included."""
        return tuple(self._records)

    def delete_before(self, offset: int) -> None:
        """Move the start; what lies below is gone."""
        if offset <= self.start:
            return
        self.start = min(offset, self.end)
        keep = bisect_left(self._offsets, self.start)
        del self._records[:keep]
        del self._offsets[:keep]

    def retain(self, oldest_ms: int) -> None:
        """Delete from the front every record older than ``oldest_ms``, as a broker does by record timestamps;
        never past the last stable offset."""
        limit = self.last_stable
        start = limit
        for record in self._records:
            if record.offset() >= limit or record.timestamp()[1] >= oldest_ms:
                start = min(record.offset(), limit)
                break
        self.delete_before(start)

    def compact(self, *, tombstones: bool = True, markers: bool = True, trailing_marker: bool = True) -> None:
        """Keep the newest committed record of every key below the last stable offset.

        Args:
            tombstones: keep a newest record without value.
            markers: keep control markers that are not the log's last entry.
            trailing_marker: keep a control marker that is the log's last entry; without it the log ends in a
                gap that no read will ever see a record behind.
        """
        limit = self.last_stable
        newest = {
            record.key(): record.offset()
            for record in self._records
            if record.offset() < limit and not record.marker and not record.aborted
        }

        def stays(record: MemoryMessage) -> bool:
            if record.offset() >= limit:
                return True
            if record.marker:
                return trailing_marker if record.offset() == self.end - 1 else markers
            if record.aborted or newest[record.key()] != record.offset():
                return False
            return tombstones or record.value() is not None

        self._keep(record for record in self._records if stays(record))

    def _keep(self, records: Iterable[MemoryMessage]) -> None:
        self._records = list(records)
        self._offsets = [record.offset() for record in self._records]
