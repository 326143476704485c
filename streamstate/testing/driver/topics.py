"""What a test puts into topics and takes out of them, as typed records.

Rule of this module: bytes on the broker's side, typed values on the test's; an output is read by a cursor of its own,
so that two readers of a topic do not take records from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from streamstate.engine.ports import Clock, TopicPartition
from streamstate.engine.task.store_marks import MARK_KEY
from streamstate.errors import SerdeError
from streamstate.operators.base.context import checked_headers
from streamstate.serde import Serde
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.log import Headers, MemoryMessage
from streamstate.units import Duration
from streamstate.windows import whole_ms

__all__ = ["InputTopic", "OutputTopic", "Record", "WriteOrderBroker"]

K = TypeVar("K")
V = TypeVar("V")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(time: int | datetime) -> int:
    """Milliseconds since 1970; a datetime without a zone is taken as UTC.

    >>> milliseconds(datetime(2013, 1, 1, 5)), milliseconds(5)
    (1357016400000, 5)

    Raises:
        TypeError: it is neither an int nor a datetime.
    """
    if isinstance(time, datetime):
        known = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        return (known - _EPOCH) // timedelta(milliseconds=1)
    if type(time) is not int:
        raise TypeError(f"a time is an int, in ms since 1970, or a datetime, not {type(time).__name__}: {time!r}")
    return time


@dataclass(frozen=True, slots=True)
class Record(Generic[K, V]):
    """A record that came out.

    Attributes:
        key: decoded; None where it has none.
        value: decoded; None is a tombstone.
        timestamp: event time in ms since 1970.
        headers: name and bytes of each.
        partition: it is in.
    """

    key: K | None
    value: V | None
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...] = ()
    partition: int = 0


def _encoded(topic: str, part: str, serde: Serde[Any], given: Any) -> bytes | None:
    try:
        return serde.encode(given)
    except SerdeError as error:
        raise SerdeError(
            f"topic {topic!r}, {part}: {error}. Pipe what the topology reads there, or name another serde: "
            f"driver.input({topic!r}, {part}=...)"
        ) from error


def _decoded(message: MemoryMessage, part: str, serde: Serde[Any], data: bytes) -> Any:
    try:
        return serde.decode(data)
    except SerdeError as error:
        raise SerdeError(
            f"topic {message.topic()!r}, partition {message.partition()}, offset {message.offset()}, {part}: {error}. "
            f"Name the serde by which it was written: driver.output({message.topic()!r}, {part}=...)"
        ) from error


class WriteOrderBroker(MemoryBroker):
    """Keep the order in which records were written to a topic, across its partitions."""

    def __init__(self, clock: Clock, *, default_partitions: int = 1) -> None:
        super().__init__(clock, default_partitions=default_partitions)
        self.written: dict[str, list[MemoryMessage]] = {}

    def add(
        self,
        at: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        timestamp: int | None,
        headers: Headers | None,
        producer_id: int = -1,
    ) -> int:
        """See ``MemoryBroker``."""
        offset = super().add(at, key, value, timestamp, headers, producer_id)
        self.written.setdefault(at.topic, []).append(self._topics[at.topic].logs[at.partition].newest)
        return offset

    def is_open(self, message: MemoryMessage) -> bool:
        """True while readers of committed records do not get to this record."""
        log = self.log(TopicPartition(message.topic(), message.partition()))
        return log is not None and message.offset() >= log.last_stable


class InputTopic(Generic[K, V]):
    """A topic to put records into (Kafka Streams: ``TestInputTopic``). Made by ``TopologyTestDriver.input``.

    Args:
        topic: its name.
        key: serde of the key.
        value: serde of the value.
        start: event time of the first record that is given none; None: the driver's wall clock.
        step: from one such record to the next.
        append: puts a record in and lets the topology process it.
    """

    def __init__(
        self,
        topic: str,
        key: Serde[K],
        value: Serde[V],
        start: int | datetime | None,
        step: Duration,
        append: Callable[[str, bytes | None, bytes | None, int, int | None, Headers | None], None],
    ) -> None:
        self.topic = topic
        self._key = key
        self._value = value
        self._next_ms = None if start is None else milliseconds(start)
        self._step_ms = whole_ms(step)
        self._append = append

    def __repr__(self) -> str:
        return f"<InputTopic {self.topic}>"

    def pipe(
        self,
        key: K | None,
        value: V | None,
        *,
        timestamp: int | datetime | None = None,
        headers: Iterable[tuple[str, bytes | str | None]] = (),
        partition: int | None = None,
    ) -> None:
        """Put one record in. It is processed when this returns, behind repartition topics too.

        Args:
            key: of the record; None: it has none.
            value: of the record; None is a tombstone.
            timestamp: event time, in ms since 1970 or as a datetime (UTC unless it says otherwise); None: the next
                one of ``start`` and ``step``, or the driver's wall clock.
            headers: of the record: bytes, None, or text, which is sent as UTF-8.
            partition: None: by the key, as producers do it; in turns without a key.

        Raises:
            SerdeError: the key or the value is not what its serde takes. Nothing was put in.
            StreamStateError: what ends the process in production.
            RecordRefused: the broker would not take the record.
            TypeError, OverflowError: no client sends it, such as one with a time that is a float.
        """
        # Both before the time: a record that is refused takes none of the times.
        encoded = _encoded(self.topic, "key", self._key, key), _encoded(self.topic, "value", self._value, value)
        sent = checked_headers(headers)
        at_ms = self._time() if timestamp is None else milliseconds(timestamp)
        self._append(
            self.topic,
            *encoded,
            -1 if partition is None else partition,
            at_ms,
            sent or None,
        )

    def pipe_all(self, pairs: Iterable[tuple[K | None, V | None]]) -> None:
        """``pipe`` for each (key, value), one after the other."""
        for key, value in pairs:
            self.pipe(key, value)

    def _time(self) -> int | None:
        at_ms = self._next_ms
        if at_ms is not None:
            self._next_ms = at_ms + self._step_ms
        return at_ms


class OutputTopic(Generic[K, V]):
    """A topic to read, each record once (Kafka Streams: ``TestOutputTopic``). Made by ``TopologyTestDriver.output``.

    Records come in the order in which they were written, over all partitions.

    Args:
        topic: its name.
        key: serde of the key.
        value: serde of the value.
        broker: has the records.
        committed: false to see records of open and aborted transactions too.
    """

    def __init__(self, topic: str, key: Serde[K], value: Serde[V], broker: WriteOrderBroker, committed: bool) -> None:
        self.topic = topic
        self._key = key
        self._value = value
        self._broker = broker
        self._committed = committed
        self._next = 0

    def __repr__(self) -> str:
        return f"<OutputTopic {self.topic}, {len(self)} unread>"

    def _unread(self) -> list[MemoryMessage]:
        written = self._broker.written.get(self.topic, [])
        return [
            message
            for message in written[self._next :]
            # Changelogs have the marks of their stores beside the entries.
            if message.key() != MARK_KEY
            and not (self._committed and (message.aborted or self._broker.is_open(message)))
        ]

    def _take(self, limit: int | None) -> list[Record[K, V]]:
        written = self._broker.written.get(self.topic, [])
        taken: list[Record[K, V]] = []
        while self._next < len(written) and (limit is None or len(taken) < limit):
            message = written[self._next]
            if self._committed and self._broker.is_open(message):
                break
            self._next += 1
            if not (self._committed and message.aborted) and message.key() != MARK_KEY:
                taken.append(self._decode(message))
        return taken

    def _decode(self, message: MemoryMessage) -> Record[K, V]:
        key, value = message.key(), message.value()
        return Record(
            None if key is None else _decoded(message, "key", self._key, key),
            None if value is None else _decoded(message, "value", self._value, value),
            message.timestamp()[1],
            tuple(message.headers() or ()),
            message.partition(),
        )

    def __len__(self) -> int:
        return len(self._unread())

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[Record[K, V]]:
        while found := self._take(1):
            yield found[0]

    def read(self) -> Record[K, V]:
        """The next record.

        Raises:
            LookupError: there is none.
        """
        for record in self._take(1):
            return record
        raise LookupError(f"topic {self.topic!r} has no further record")

    def read_all(self) -> list[Record[K, V]]:
        """All that were not read yet."""
        return self._take(None)

    def pairs(self) -> list[tuple[K | None, V | None]]:
        """(key, value) of all that were not read yet."""
        return [(record.key, record.value) for record in self._take(None)]

    def values(self) -> list[V | None]:
        """Values of all that were not read yet."""
        return [record.value for record in self._take(None)]

    def newest(self) -> dict[Any, V | None]:
        """The newest value of each key among those that were not read yet; None where that is a tombstone."""
        return {record.key: record.value for record in self._take(None)}
