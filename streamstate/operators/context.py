"""What operators share while a record runs through a task: the record's context, the outputs, the schedules.

Rule of this module: one instance per task, changed in place; nothing here is made per record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from streamstate.errors import SerdeError, shown
from streamstate.serde import Serde

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


class OperatorFailed(Exception):
    """User code or a serde failed on the record in hand. The task applies its error policy.

    Attributes:
        operator: the node's name.
        doing: what it was doing, for the message.
        encoded: the value that a sink could encode but not send.
        refusal: why a serde refused what it was given, in words; None where that is not what failed.
    """

    def __init__(self, operator: str, doing: str = "", encoded: bytes | None = None) -> None:
        super().__init__(operator, doing)
        self.operator = operator
        self.doing = doing
        self.encoded = encoded
        self.refusal: SerdeError | None = None

    @property
    def reason(self) -> BaseException | None:
        """Why, in the words that say most."""
        return self.refusal or self.__cause__


def not_encoded(operator: str, doing: str, *given: tuple[Serde[Any], Any]) -> OperatorFailed:
    """The failure of an operator that could not encode a key or a value; to be raised from what ``serialize`` raised.

    Args:
        operator: the node's name.
        doing: what it was doing.
        given: each serde with what it was given; the first one that refuses its value has the say.
    """
    failure = OperatorFailed(operator, doing)
    for serde, value in given:
        try:
            serde.encode(value)
        except SerdeError as refusal:
            failure.refusal = refusal
            break
    return failure


class TaskInterrupted(Exception):
    """What a record needs is not to be had now, through no fault of the record: no error policy applies, and what
    was done since the last commit starts over."""


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
        calls: runs coroutines, see ``streamstate.operators.held.Calls``.
        release_due: true when what operators hold back is to go on after the record in hand.
        dropped: records left out by rule, such as those with a null key in a keyed operator; late ones too.
        late: records that came after all their windows had closed.
    """

    __slots__ = ("application_id", "calls", "dropped", "late", "limits", "now_ms", "outputs", "record", "release_due",
                 "schedules", "stream_time", "task_id", "timestamp")  # fmt: skip

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


class Schedule:
    """One punctuation."""

    __slots__ = ("_owner", "callback", "interval_ms", "next_ms", "wall_clock")

    def __init__(
        self, owner: Schedules, interval_ms: int, next_ms: int, wall_clock: bool, callback: Callable[[int], object]
    ) -> None:
        self._owner = owner
        self.interval_ms = interval_ms
        self.next_ms = next_ms
        self.wall_clock = wall_clock
        self.callback = callback

    def cancel(self) -> None:
        """Do not call it again."""
        self._owner.remove(self)

    def run(self, time_ms: int) -> int:
        """Call it, once however many intervals have passed; return how many calls that were."""
        missed = (time_ms - self.next_ms) // self.interval_ms
        self.next_ms += (missed + 1) * self.interval_ms
        self.callback(time_ms)
        return 1


NEVER_MS = (1 << 63) - 1


class Scheduled(Protocol):
    """What is called when a time has come.

    Attributes:
        next_ms: when it is next due.
        wall_clock: by the wall clock; otherwise in stream time.
    """

    next_ms: int
    wall_clock: bool

    def run(self, time_ms: int) -> int:
        """Do what is due at ``time_ms``; return how much it was."""
        ...


class Schedules:
    """The punctuations of a task, and the timers of its processors.

    Attributes:
        next_stream_ms: stream time at which the next one is due.
        next_wall_ms: wall-clock time at which the next one, or what is held back, is due.
        release_ms: wall-clock time at which what operators hold back must go on.
        timers: by store of timers, the processor that is called.
    """

    __slots__ = ("_all", "next_stream_ms", "next_wall_ms", "release_ms", "timers")

    def __init__(self) -> None:
        self._all: list[Scheduled] = []
        self.timers: dict[str, str] = {}
        self.release_ms = NEVER_MS
        self.next_stream_ms = NEVER_MS
        self.next_wall_ms = NEVER_MS

    def add(
        self, interval_ms: int, wall_clock: bool, callback: Callable[[int], object], now_ms: int, stream_time: int
    ) -> Schedule:
        """Add one. Wall-clock ones are first due one interval from now. Stream-time ones fall on multiples of the
        interval, so that a task that moved to another process continues in the same rhythm; the very first is
        due with the first record."""
        if wall_clock:
            next_ms = now_ms + interval_ms
        elif stream_time < 0:
            next_ms = 0
        else:
            next_ms = (stream_time // interval_ms + 1) * interval_ms
        schedule = Schedule(self, interval_ms, next_ms, wall_clock, callback)
        self.attach(schedule)
        return schedule

    def attach(self, scheduled: Scheduled) -> None:
        """Add something else that says itself when it is due."""
        self._all.append(scheduled)
        self._refresh()

    def due_earlier(self, time_ms: int, *, wall_clock: bool) -> None:
        """One of them is due at ``time_ms`` already."""
        if wall_clock:
            self.next_wall_ms = min(self.next_wall_ms, time_ms)
        else:
            self.next_stream_ms = min(self.next_stream_ms, time_ms)

    def remove(self, schedule: Scheduled) -> None:
        """Forget it; harmless when already gone."""
        if schedule in self._all:
            self._all.remove(schedule)
            self._refresh()

    def clear(self) -> None:
        """Forget all."""
        self._all.clear()
        self._refresh()

    def run(self, time_ms: int, wall_clock: bool) -> int:
        """Call each that is due at ``time_ms``; return how many calls that were."""
        calls = 0
        for schedule in list(self._all):
            if schedule.wall_clock is wall_clock and schedule.next_ms <= time_ms and schedule in self._all:
                calls += schedule.run(time_ms)
        self._refresh()
        return calls

    def _refresh(self) -> None:
        self.next_stream_ms = min((s.next_ms for s in self._all if not s.wall_clock), default=NEVER_MS)
        self.next_wall_ms = min((s.next_ms for s in self._all if s.wall_clock), default=NEVER_MS)
        self.next_wall_ms = min(self.next_wall_ms, self.release_ms)

    def hold(self, release_ms: int) -> None:
        """Say when what operators hold back must go on."""
        if release_ms != self.release_ms:
            self.release_ms = release_ms
            self._refresh()
