"""What operators share while a record runs through a task: the record's context and the outputs.

One instance per task, changed in place; nothing here is made per record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from streamstate.errors import shown
from streamstate.operators.base.schedules import Schedules

Headers = list[tuple[str, bytes | None]]

# (topic, value, key, partition, delivery callback, timestamp in ms, headers): the producer's argument order.
Output = tuple[str, bytes | None, bytes | None, int, None, int | None, Headers | None]

# Further ahead than any timestamp: the limit of topics that take every timestamp.
NO_LIMIT_MS = (1 << 63) - 1


# What a header needs beside its name and its value, at most.
HEADER_FRAMING_BYTES = 10


def output_bytes(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """Size of a record, as limits of topics count it."""
    size = (0 if key is None else len(key)) + (0 if value is None else len(value))
    if headers:
        size += sum(len(name.encode()) + len(data or b"") + HEADER_FRAMING_BYTES for name, data in headers)
    return size


def checked_headers(headers: Any) -> Headers:
    """Headers as the client takes them.

    Args:
        headers: pairs of a name and a value: bytes, None, or text, which is sent as UTF-8.

    Raises:
        TypeError: they have another form.

    >>> checked_headers([("trace", b"1"), ("source", "EWR")])
    [('trace', b'1'), ('source', b'EWR')]
    >>> checked_headers({"trace": b"1"})
    Traceback (most recent call last):
    TypeError: headers are pairs of a str and bytes, not 'trace': such as [("trace", b"1")]
    """
    checked: Headers = []
    for pair in headers:
        if type(pair) not in (tuple, list) or len(pair) != 2:
            raise TypeError(f'headers are pairs of a str and bytes, not {shown(pair)}: such as [("trace", b"1")]')
        name, value = pair
        if not isinstance(name, str) or not (value is None or isinstance(value, bytes | str)):
            raise TypeError(f'headers are pairs of a str and bytes, not {shown(pair)}: such as [("trace", b"1")]')
        # A name that is no UTF-8 fails here.
        name.encode()
        checked.append((name, value.encode() if isinstance(value, str) else value))
    return checked


class InputRecord(Protocol):
    """The part of a consumed message that a context shows."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> Headers | None: ...


class RecordWithHeaders:
    """A record whose headers a processor has replaced."""

    __slots__ = ("_headers", "_record")

    def __init__(self, record: InputRecord | None, headers: Headers) -> None:
        self._record = record
        self._headers = headers

    def topic(self) -> Any:
        return None if self._record is None else self._record.topic()

    def partition(self) -> Any:
        return None if self._record is None else self._record.partition()

    def offset(self) -> Any:
        return None if self._record is None else self._record.offset()

    def timestamp(self) -> Any:
        return None if self._record is None else self._record.timestamp()

    def headers(self) -> Headers | None:
        return self._headers


def original(record: Any) -> Any:
    """The record as it was read, without headers that a processor has replaced."""
    while isinstance(record, RecordWithHeaders):
        record = record._record
    return record


class TaskContext:
    """State of the task that operators read and write.

    Attributes:
        application_id: of the application.
        task_id: such as ``lines_0``.
        record: the record in hand; None in a punctuation or a commit.
        timestamp: event time (ms) of the record that a processor has in hand.
        stream_time: highest event time (ms) seen; -1 before the first record.
        outputs: what the record, and those before it in the batch, send.
        now_ms: wall clock in ms.
        limits: by topic, a list of three: the latest timestamp (ms) its broker takes now, the most bytes of a record's
            key, value and headers, and 1 where records need a key, as in a compacted topic.
        calls: runs coroutines, see ``streamstate.operators.base.holding.AsyncCalls``.
        release_due: true when what operators hold back is to go on after the record in hand.
        dropped: records left out by rule, such as those with a null key in a keyed operator; late ones too.
        late: records that came after all their windows had closed.
        due_failed: applies the error policy of a result that came due with time, see ``due_results``.
    """

    __slots__ = ("application_id", "calls", "dropped", "due_failed", "late", "limits", "now_ms", "outputs", "record",
                 "release_due", "schedules", "stream_time", "task_id", "timestamp")  # fmt: skip

    def __init__(
        self,
        application_id: str,
        task_id: str,
        now_ms: Callable[[], int],
        limits: Callable[[str], list[int]],
    ) -> None:
        self.application_id = application_id
        self.task_id = task_id
        self.record: InputRecord | None = None
        self.timestamp = -1
        self.stream_time = -1
        self.outputs: list[Output] = []
        self.now_ms = now_ms
        self.limits = limits
        self.schedules = Schedules()
        self.calls: Any = None
        self.release_due = False
        self.dropped = 0
        self.late = 0
        self.due_failed: Any = None
