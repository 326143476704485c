"""Keys of windowed stores: bytes whose order is the order of time.

Rule of this module: every key begins with 8 bytes of time, so that everything before a point in time is one range from
the store's start. Two layouts:

- ``by_start``: start, key. For windows whose starts are known from a record's time, so that each is a point lookup.
- ``in_segments``: start of the segment, length of the key, key, times. A segment is a stretch of time; one key's
  entries in a segment lie together, in order of time.

``TIME_KEY`` lies behind all of them: under it a store keeps the highest time its operator has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from streamstate.serde import Serde
from streamstate.windows import FOREVER_MS, SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows, Windowed

# Added to a time, so that the order of unsigned bytes is that of signed numbers.
BIAS = 1 << 63
TIME_KEY = b"\xff" * 9
# Behind the time in entries of an index, where buckets have the length of a key.
INDEX_MARK = b"\xff" * 4
LEAST_SEGMENT_MS = 60_000

_U64 = Struct(">Q")
_PREFIX = Struct(">QI")
_TWO = Struct(">QQ")
_SEQUENCED = Struct(">QI")


def pack_time(time_ms: int) -> bytes:
    """8 bytes in the order of time.

    >>> pack_time(-1) < pack_time(0) < pack_time(1) < TIME_KEY
    True
    """
    return _U64.pack(time_ms + BIAS)


def unpack_time(data: bytes, at: int = 0) -> int:
    """What ``pack_time`` has packed."""
    time_ms: int = _U64.unpack_from(data, at)[0] - BIAS
    return time_ms


def segment_length(retention_ms: int) -> int:
    """Length of a segment, as in Kafka Streams: about two of them are live at a time."""
    return max(retention_ms // 2, LEAST_SEGMENT_MS)


def bucket(segment_ms: int, key: bytes) -> bytes:
    """What all entries of ``key`` begin with in the segment that starts at ``segment_ms``."""
    return _PREFIX.pack(segment_ms + BIAS, len(key)) + key


def pack_times(first_ms: int, second_ms: int) -> bytes:
    """Two times, in the order of the first."""
    return _TWO.pack(first_ms + BIAS, second_ms + BIAS)


def unpack_times(data: bytes, at: int) -> tuple[int, int]:
    """What ``pack_times`` has packed."""
    first, second = _TWO.unpack_from(data, at)
    return first - BIAS, second - BIAS


def pack_sequenced(time_ms: int, sequence: int) -> bytes:
    """A time and a number that tells apart what has the same time."""
    return _SEQUENCED.pack(time_ms + BIAS, sequence)


def unpack_sequenced(data: bytes, at: int) -> tuple[int, int]:
    """What ``pack_sequenced`` has packed."""
    time, sequence = _SEQUENCED.unpack_from(data, at)
    return time - BIAS, sequence


def key_in_bucket(data: bytes) -> bytes:
    """The key of an entry laid out in segments."""
    length: int = _PREFIX.unpack_from(data)[1]
    return data[12 : 12 + length]


def _by_start(key: Serde[Any], size_ms: int | None) -> Serde[Any]:
    encode, decode, pack = key.serialize, key.deserialize, _U64.pack

    def serialize(windowed: Windowed[Any]) -> bytes:
        return pack(windowed[1] + BIAS) + encode(windowed[0])

    def deserialize(data: bytes) -> Windowed[Any]:
        start = unpack_time(data)
        return Windowed(decode(data[8:]), start, FOREVER_MS if size_ms is None else start + size_ms)

    return Serde(f"start, {key.name}", serialize, deserialize, immutable=key.immutable, schema=key.schema)


def _in_segments(
    key: Serde[Any],
    segment_ms: int,
    placed_at: Callable[[Windowed[Any]], int],
    suffix: Callable[[Windowed[Any]], bytes],
    window: Callable[[bytes, int], tuple[int, int]],
) -> Serde[Any]:
    encode, decode = key.serialize, key.deserialize

    def serialize(windowed: Windowed[Any]) -> bytes:
        return bucket(placed_at(windowed) // segment_ms * segment_ms, encode(windowed[0])) + suffix(windowed)

    def deserialize(data: bytes) -> Windowed[Any]:
        inner = key_in_bucket(data)
        return Windowed(decode(inner), *window(data, 12 + len(inner)))

    return Serde(f"segment, {key.name}, times", serialize, deserialize, immutable=key.immutable, schema=key.schema)


def store_key(windows: Any, key: Serde[Any], segment_ms: int) -> Serde[Any]:
    """Serde of ``Windowed`` in the store of ``windows``."""
    if isinstance(windows, TimeWindows):
        return _by_start(key, windows.size_ms)
    if isinstance(windows, UnlimitedWindows):
        return _by_start(key, None)
    if isinstance(windows, SlidingWindows):
        length = windows.difference_ms

        def sliding(data: bytes, at: int) -> tuple[int, int]:
            start = unpack_time(data, at)
            return start, start + length

        return _in_segments(key, segment_ms, lambda w: w.start, lambda w: pack_time(w.start), sliding)
    assert isinstance(windows, SessionWindows), f"no layout for {windows!r}"

    def session(data: bytes, at: int) -> tuple[int, int]:
        end, start = unpack_times(data, at)
        return start, end

    return _in_segments(key, segment_ms, lambda w: w.end, lambda w: pack_times(w.end, w.start), session)


def index_of(windows: Any) -> Callable[[bytes], tuple[int, bytes]] | None:
    """Time and suffix of the index's entry for the key of an entry; None for windows that need no index."""

    def session(data: bytes) -> tuple[int, bytes]:
        inner = key_in_bucket(data)
        end, start = unpack_times(data, 12 + len(inner))
        return end, pack_time(start) + inner

    def sliding(data: bytes) -> tuple[int, bytes]:
        inner = key_in_bucket(data)
        return unpack_time(data, 12 + len(inner)), inner

    if isinstance(windows, SessionWindows):
        return session
    return sliding if isinstance(windows, SlidingWindows) else None


def record_key(key: Serde[Any], segment_ms: int) -> Serde[tuple[Any, int, int]]:
    """Serde of (key, time, number) in the store of a stream's records."""
    encode, decode = key.serialize, key.deserialize

    def serialize(record: tuple[Any, int, int]) -> bytes:
        return bucket(record[1] // segment_ms * segment_ms, encode(record[0])) + pack_sequenced(record[1], record[2])

    def deserialize(data: bytes) -> tuple[Any, int, int]:
        inner = key_in_bucket(data)
        return (decode(inner), *unpack_sequenced(data, 12 + len(inner)))

    return Serde(
        f"segment, {key.name}, time, number", serialize, deserialize, immutable=key.immutable, schema=key.schema
    )


def waiting_key(key: Serde[Any]) -> Serde[tuple[bool, int, Any, int]]:
    """Serde of (is left, time, key, number) in the store of records that wait to be joined."""
    encode, decode = key.serialize, key.deserialize

    def serialize(record: tuple[bool, int, Any, int]) -> bytes:
        return bytes((record[0],)) + pack_time(record[1]) + encode(record[2]) + record[3].to_bytes(4, "big")

    def deserialize(data: bytes) -> tuple[bool, int, Any, int]:
        return data[0] == 1, unpack_time(data, 1), decode(data[9:-4]), int.from_bytes(data[-4:], "big")

    return Serde(f"side, time, {key.name}, number", serialize, deserialize, immutable=key.immutable, schema=key.schema)
