"""Windows: which of them a record belongs to, when they close, and what a windowed key is.

This is arithmetic in integer milliseconds since 1970. Users give durations as ``timedelta`` or as text, such as
``"5m"``. Time windows hold ``start <= t < end``; sliding windows and sessions hold ``start <= t <= end``. No window
starts before 1970, as in Kafka Streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

from streamstate.errors import TopologyError, shown
from streamstate.serde import Serde, SerdeLike, serde_of
from streamstate.units import Duration, parse_duration

__all__ = [
    "DEFAULT_GRACE_MS",
    "FOREVER_MS",
    "LATEST_TIME_MS",
    "JoinWindows",
    "SessionWindows",
    "SlidingWindows",
    "TimeWindows",
    "UnlimitedWindows",
    "Windowed",
    "as_timedelta",
    "checked_time",
    "hopping",
    "join",
    "session",
    "session_windowed",
    "sliding",
    "time_windowed",
    "tumbling",
    "unlimited",
    "whole_ms",
]

K = TypeVar("K")

# The end of a window that has none.
FOREVER_MS = (1 << 63) - 1
# The latest time that a record, a timer or an entry of a store may have; the earliest of a store is as far before 1970.
# Windows, grace, retention and ttl are added to it and subtracted from it. Each is less than 2**57 ms,
# so that no sum of them leaves the 64 bits that stored keys have for a time.
LATEST_TIME_MS = (1 << 62) - 1

_TIME = Struct(">q")
_TWO_TIMES = Struct(">qq")
_ZERO = timedelta(0)
# Of all windows here and of joins. Kafka Streams has 24 hours where an old method without a grace is called.
DEFAULT_GRACE_MS = 0
_MILLISECOND = timedelta(milliseconds=1)


def checked_time(time_ms: object, what: str, earliest_ms: int = -LATEST_TIME_MS) -> None:
    """Refuse what is no time, before it is part of a key or of a sum.

    Args:
        time_ms: in ms since 1970.
        what: it is the time of, for the error.
        earliest_ms: that it may be.

    Raises:
        TypeError: it is not an int.
        ValueError: it is too early or too late.

    >>> checked_time(5, "a timer")
    >>> checked_time(1.5, "a timer")
    Traceback (most recent call last):
    TypeError: the time of a timer is in ms since 1970, an int, not float: 1.5
    >>> checked_time(1 << 63, "a timer")
    Traceback (most recent call last):
    ValueError: the time of a timer is 9223372036854775808 ms, later than 4611686018427387903 ms, the latest there is
    """
    if type(time_ms) is not int:
        raise TypeError(
            f"the time of {what} is in ms since 1970, an int, not {type(time_ms).__name__}: {shown(time_ms)}"
        )
    if time_ms > LATEST_TIME_MS:
        raise ValueError(
            f"the time of {what} is {shown(time_ms)} ms, later than {LATEST_TIME_MS} ms, the latest there is"
        )
    if time_ms < earliest_ms:
        raise ValueError(
            f"the time of {what} is {shown(time_ms)} ms, earlier than {earliest_ms} ms, the earliest there is"
        )


class Windowed(NamedTuple, Generic[K]):
    """A key and its window (Kafka Streams: ``Windowed``).

    Attributes:
        key: as it was grouped.
        start: of the window, in ms since 1970; it is part of the window.
        end: of the window, in ms since 1970; part of sliding windows and sessions, not of time windows.

    >>> Windowed("EWR", 0, 3_600_000)
    Windowed(key='EWR', start=0, end=3600000)
    """

    key: K
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TimeWindows:
    """Windows of one length, one every ``advance_ms``. Made by ``tumbling`` and ``hopping``."""

    size_ms: int
    advance_ms: int
    grace_ms: int

    def starts(self, timestamp: int) -> range:
        """Starts of the windows that hold ``timestamp``, earliest first.

        >>> list(TimeWindows(10, 5, 0).starts(12)), list(TimeWindows(10, 5, 0).starts(3))
        ([5, 10], [0])
        """
        first = timestamp - self.size_ms + self.advance_ms
        first = first // self.advance_ms * self.advance_ms if first > 0 else 0
        return range(first, timestamp + 1, self.advance_ms)

    @property
    def retention_ms(self) -> int:
        """How long after its start a window may still be read."""
        return self.size_ms + self.grace_ms

    @property
    def content(self) -> str:
        """What a store of these windows remembers of them: all but the grace."""
        return f"windows of {self.size_ms} ms every {self.advance_ms} ms"


@dataclass(frozen=True, slots=True)
class UnlimitedWindows:
    """One window that starts once and never ends. Made by ``unlimited``."""

    start_ms: int

    def starts(self, timestamp: int) -> range:
        """Its start, when ``timestamp`` is not before it."""
        return range(self.start_ms, self.start_ms + (timestamp >= self.start_ms))

    @property
    def content(self) -> str:
        """As ``TimeWindows.content``."""
        return f"an unlimited window from {self.start_ms}"


@dataclass(frozen=True, slots=True)
class SlidingWindows:
    """Windows around records: a pair of records shares one when they are at most ``difference_ms`` apart."""

    difference_ms: int
    grace_ms: int

    @property
    def retention_ms(self) -> int:
        """How long after its start a window may still be read.

        The earliest record still taken looks for its predecessor's windows up to twice the difference before itself.
        """
        return 3 * self.difference_ms + self.grace_ms + 1

    @property
    def content(self) -> str:
        """As ``TimeWindows.content``."""
        return f"sliding windows of {self.difference_ms} ms"


@dataclass(frozen=True, slots=True)
class SessionWindows:
    """Windows of activity: a record joins every session that is at most ``gap_ms`` away."""

    gap_ms: int
    grace_ms: int

    @property
    def retention_ms(self) -> int:
        """How long after its end a session may still be read."""
        return self.gap_ms + self.grace_ms + 1

    @property
    def content(self) -> str:
        """As ``TimeWindows.content``."""
        return f"sessions with a gap of {self.gap_ms} ms"


@dataclass(frozen=True, slots=True)
class JoinWindows:
    """How far apart two records may be to be joined: the other one's time is within ``before_ms`` before and
    ``after_ms`` after this one's. Made by ``join``."""

    before_ms: int
    after_ms: int
    grace_ms: int

    @property
    def retention_ms(self) -> int:
        """How long after its time a record may still be read; of the same time, when all else is zero."""
        return self.before_ms + self.after_ms + self.grace_ms + 1

    @property
    def content(self) -> str:
        """As ``TimeWindows.content``."""
        return f"within {self.before_ms} ms before and {self.after_ms} ms after"


def as_timedelta(duration: object) -> timedelta | None:
    """A duration as users give it; None when it is none.

    >>> as_timedelta("1m30s"), as_timedelta(timedelta(hours=1)), as_timedelta(5)
    (datetime.timedelta(seconds=90), datetime.timedelta(seconds=3600), None)
    """
    if isinstance(duration, str):
        try:
            return parse_duration(duration)
        except ValueError:
            return None
    return duration if isinstance(duration, timedelta) else None


def whole_ms(duration: Duration) -> int:
    """A duration that has been checked, in ms, without fractions of one."""
    checked = as_timedelta(duration)
    assert checked is not None, f"{duration!r} was not checked"
    return checked // _MILLISECOND


def milliseconds(duration: object, what: str, *, least_ms: int = 0) -> int:
    """``duration`` in whole milliseconds; ``what`` is what errors call it.

    Raises:
        TopologyError: it is no duration, has fractions of a millisecond or is less than ``least_ms``.

    >>> milliseconds(timedelta(seconds=1.5), "the size"), milliseconds("2m", "the size")
    (1500, 120000)
    """
    given, duration = duration, as_timedelta(duration)
    if duration is None:
        raise TopologyError(f'{what} is a duration, such as timedelta(minutes=5) or "5m", not {given!r}')
    whole = duration // _MILLISECOND
    if whole * _MILLISECOND != duration:
        raise TopologyError(f"{what} is {duration}: times here are whole milliseconds")
    if whole < least_ms:
        raise TopologyError(f"{what} is {duration}: it is at least {least_ms} ms")
    return whole


def tumbling(size: Duration, *, grace: Duration = _ZERO) -> TimeWindows:
    """Windows side by side (Kafka Streams: ``TimeWindows.ofSizeAndGrace``).

    Args:
        size: length of a window; windows start at multiples of it since 1970 (UTC).
        grace: how long after its end a window still takes records, by stream time.

    Raises:
        TopologyError: the size is below one millisecond, or the grace is negative.

    >>> list(tumbling(timedelta(minutes=1)).starts(61_000))
    [60000]
    """
    size_ms = milliseconds(size, "the size of a window", least_ms=1)
    return TimeWindows(size_ms, size_ms, milliseconds(grace, "the grace"))


def hopping(size: Duration, advance: Duration, *, grace: Duration = _ZERO) -> TimeWindows:
    """Overlapping windows (Kafka Streams: ``TimeWindows.ofSizeAndGrace(...).advanceBy``).

    Args:
        size: length of a window.
        advance: from one start to the next; at most ``size``. Windows start at multiples of it since 1970 (UTC).
        grace: how long after its end a window still takes records, by stream time.

    Raises:
        TopologyError: the advance is not between one millisecond and the size, or the grace is negative.

    >>> list(hopping(timedelta(minutes=2), timedelta(minutes=1)).starts(125_000))
    [60000, 120000]
    """
    size_ms = milliseconds(size, "the size of a window", least_ms=1)
    advance_ms = milliseconds(advance, "the advance of hopping windows", least_ms=1)
    if advance_ms > size_ms:
        raise TopologyError(f"the advance of hopping windows, {advance}, is more than their size, {size}")
    return TimeWindows(size_ms, advance_ms, milliseconds(grace, "the grace"))


def sliding(difference: Duration, *, grace: Duration = _ZERO) -> SlidingWindows:
    """A window for every set of records that fit in one (Kafka Streams: ``SlidingWindows``).

    For each record there is a window that ends with it and one that starts just after it, the latter once it holds a
    record. Both ends are part of the window.

    Args:
        difference: from start to end.
        grace: how long after its end a window still takes records, by stream time.

    Raises:
        TopologyError: the difference or the grace is negative.

    >>> sliding(timedelta(seconds=10)).difference_ms
    10000
    """
    return SlidingWindows(milliseconds(difference, "the time difference"), milliseconds(grace, "the grace"))


def session(gap: Duration, *, grace: Duration = _ZERO) -> SessionWindows:
    """Windows that last while records keep coming (Kafka Streams: ``SessionWindows.ofInactivityGapAndGrace``).

    A session starts with its first record and ends with its last. It closes when stream time is more than ``gap`` and
    ``grace`` past its end.

    Args:
        gap: records of a key that are at most this far apart are in one session.
        grace: how much later records are still taken, by stream time.

    Raises:
        TopologyError: the gap is below one millisecond, or the grace is negative.

    >>> session(timedelta(minutes=30)).gap_ms
    1800000
    """
    return SessionWindows(milliseconds(gap, "the inactivity gap", least_ms=1), milliseconds(grace, "the grace"))


def unlimited(*, start_ms: int = 0) -> UnlimitedWindows:
    """One window without an end (Kafka Streams: ``UnlimitedWindows``). Earlier records are left out.

    Args:
        start_ms: where it starts, in ms since 1970.

    Raises:
        TopologyError: the start is negative.
    """
    if not isinstance(start_ms, int) or start_ms < 0:
        raise TopologyError(f"unlimited windows start at a whole number of ms since 1970, not at {start_ms!r}")
    return UnlimitedWindows(start_ms)


def join(
    within: Duration | None = None,
    *,
    before: Duration | None = None,
    after: Duration | None = None,
    grace: Duration = _ZERO,
) -> JoinWindows:
    """How far apart records may be to join (Kafka Streams: ``JoinWindows``).

    Args:
        within: on either side; or give ``before`` and ``after``.
        before: how much earlier than the left record the right one may be.
        after: how much later than the left record the right one may be.
        grace: how much later, by stream time, a record may still come and join; left and outer joins wait this long
            before they send a record alone.

    Raises:
        TopologyError: a duration is missing or negative.

    >>> join(before=timedelta(0), after=timedelta(seconds=5))
    JoinWindows(before_ms=0, after_ms=5000, grace_ms=0)
    """
    if (within is None) == (before is None and after is None):
        raise TopologyError("windows.join takes either one duration or before= and after=")
    before = within if within is not None else before or _ZERO
    after = within if within is not None else after or _ZERO
    return JoinWindows(
        milliseconds(before, "the time before"), milliseconds(after, "the time after"), milliseconds(grace, "the grace")
    )


def time_windowed(key: SerdeLike[K], size: Duration | None = None) -> Serde[Windowed[K]]:
    """Keys of time and sliding windows as Kafka Streams writes them: the key, then the start in 8 bytes.

    Args:
        key: serde of the key itself.
        size: of the windows, or the time difference of sliding ones: the end is not written, so the reader has to
            know it. Without one, the end is read as ``FOREVER_MS``.

    Raises:
        TopologyError: the size is negative.

    >>> from streamstate import serde
    >>> by_hour = time_windowed(serde.string(), timedelta(hours=1))
    >>> by_hour.serialize(Windowed("EWR", 1, 3_600_001))
    b'EWR\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01'
    >>> by_hour.deserialize(_)
    Windowed(key='EWR', start=1, end=3600001)
    """
    return _time_windowed(
        serde_of(key, "key", key=True), None if size is None else milliseconds(size, "the size of a window")
    )


def _time_windowed(key: Serde[K], size_ms: int | None) -> Serde[Windowed[K]]:
    encode, decode, pack = key.serialize, key.deserialize, _TIME.pack

    def serialize(windowed: Windowed[K]) -> bytes:
        return encode(windowed[0]) + pack(windowed[1])

    def deserialize(data: bytes) -> Windowed[K]:
        start: int = _TIME.unpack(data[-8:])[0]
        return Windowed(decode(data[:-8]), start, FOREVER_MS if size_ms is None else min(start + size_ms, FOREVER_MS))

    return Serde(f"time_windowed({key.name})", serialize, deserialize, immutable=key.immutable, schema=key.schema)


def session_windowed(key: SerdeLike[K]) -> Serde[Windowed[K]]:
    """Keys of sessions as Kafka Streams writes them: the key, then the end and the start in 8 bytes each.

    Args:
        key: serde of the key itself.

    >>> from streamstate import serde
    >>> sessions = session_windowed(serde.string())
    >>> sessions.deserialize(sessions.serialize(Windowed("N14228", 5, 9)))
    Windowed(key='N14228', start=5, end=9)
    """
    known = serde_of(key, "key", key=True)
    encode, decode, pack = known.serialize, known.deserialize, _TWO_TIMES.pack

    def serialize(windowed: Windowed[K]) -> bytes:
        return encode(windowed[0]) + pack(windowed[2], windowed[1])

    def deserialize(data: bytes) -> Windowed[K]:
        end, start = _TWO_TIMES.unpack(data[-16:])
        return Windowed(decode(data[:-16]), start, end)

    return Serde(
        f"session_windowed({known.name})", serialize, deserialize, immutable=known.immutable, schema=known.schema
    )


def windowed_serde(windows: Any, key: Serde[Any]) -> Serde[Windowed[Any]]:
    """The serde in topics of keys of ``windows``."""
    if isinstance(windows, SessionWindows):
        return session_windowed(key)
    if isinstance(windows, SlidingWindows):
        return _time_windowed(key, windows.difference_ms)
    return _time_windowed(key, windows.size_ms if isinstance(windows, TimeWindows) else None)
