"""Serdes of truth values, identifiers, dates and times, and of lists of what another serde takes.

Rule of this module: where Kafka's Java client has a serializer, the bytes are its bytes; where it has none, they are
those of the integer serializer that is named, so that any client can read them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar
from uuid import UUID

from streamstate.serde._base import Serde
from streamstate.serde._builtin import double, float_, integer, long, short

__all__ = ["boolean", "date_", "datetime_", "list_", "time_", "uuid"]

T = TypeVar("T")

_INTEGER = struct.Struct(">i")
_LONG = struct.Struct(">q")
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY_MICROSECONDS = timedelta(days=1) // _MICROSECOND

# Kafka's ListSerializer says by its first byte whether each element has a length, and -1 for one that is null.
_CONSTANT_SIZE, _VARIABLE_SIZE = 0, 1
_NULL = -1


def _exactly(data: bytes, size: int, name: str) -> bytes:
    if len(data) != size:
        raise ValueError(f"{size} bytes are a {name}, not {len(data)}")
    return data


def _encode_boolean(value: bool) -> bytes:
    if value is True:
        return b"\x01"
    if value is False:
        return b"\x00"
    raise TypeError(f"not {type(value).__name__}")


def _decode_boolean(data: bytes) -> bool:
    if data == b"\x01":
        return True
    if data == b"\x00":
        return False
    raise ValueError(f"a boolean is one byte, 0 or 1, not {data[:8]!r}")


def _encode_uuid(value: UUID) -> bytes:
    if not isinstance(value, UUID):
        raise TypeError(f"not {type(value).__name__}")
    return str(value).encode()


def _decode_uuid(data: bytes) -> UUID:
    return UUID(data.decode())


def _encode_date(value: date) -> bytes:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError("a datetime is no date: take its .date(), or serde.datetime_()")
    return _INTEGER.pack(value.toordinal() - _EPOCH_DAY)


def _decode_date(data: bytes) -> date:
    return date.fromordinal(_INTEGER.unpack(_exactly(data, 4, "date"))[0] + _EPOCH_DAY)


def _encode_time(value: time) -> bytes:
    if value.tzinfo is not None:
        raise ValueError("a time with a zone: without a date it is no point in time. Leave out tzinfo=")
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return _LONG.pack(seconds * 1_000_000 + value.microsecond)


def _decode_time(data: bytes) -> time:
    microseconds = _LONG.unpack(_exactly(data, 8, "time"))[0]
    if not 0 <= microseconds < _DAY_MICROSECONDS:
        raise ValueError(f"{microseconds} microseconds since midnight are no time of day")
    known: datetime = _EPOCH + microseconds * _MICROSECOND
    return known.time()


def _encode_datetime(value: datetime) -> bytes:
    if value.utcoffset() is None:
        raise ValueError("a datetime without a zone: which point in time it is, nobody can tell. Give it tzinfo=")
    return _LONG.pack((value - _EPOCH) // _MICROSECOND)


def _decode_datetime(data: bytes) -> datetime:
    since: timedelta = _LONG.unpack(_exactly(data, 8, "datetime"))[0] * _MICROSECOND
    return _EPOCH + since


_BOOLEAN: Serde[bool] = Serde("boolean", _encode_boolean, _decode_boolean, immutable=True, takes=(bool,))
_UUID: Serde[UUID] = Serde("uuid", _encode_uuid, _decode_uuid, immutable=True, takes=(UUID,))
_DATE: Serde[date] = Serde("date", _encode_date, _decode_date, immutable=True, takes=(date,))
_TIME: Serde[time] = Serde("time", _encode_time, _decode_time, immutable=True, takes=(time,))
_DATETIME: Serde[datetime] = Serde("datetime", _encode_datetime, _decode_datetime, immutable=True, takes=(datetime,))


# Those of which ListSerializer writes no length, with the bytes of an element.
_FIXED: dict[Serde[Any], int] = {short(): 2, integer(): 4, float_(): 4, long(): 8, double(): 8, _UUID: 36}


def boolean() -> Serde[bool]:
    """A truth value in one byte, as Kafka's BooleanSerializer writes it.

    >>> boolean().serialize(True), boolean().deserialize(b"\\x00")
    (b'\\x01', False)
    """
    return _BOOLEAN


def uuid() -> Serde[UUID]:
    """A UUID as its 36 characters, as Kafka's UUIDSerializer writes it.

    >>> from uuid import UUID
    >>> uuid().serialize(UUID("0f8fad5b-d9cb-469f-a165-70867728950e"))
    b'0f8fad5b-d9cb-469f-a165-70867728950e'
    """
    return _UUID


def date_() -> Serde[date]:
    """A date as days since 1970, as Kafka's IntegerSerializer writes them.

    >>> from datetime import date
    >>> date_().serialize(date(1970, 1, 3))
    b'\\x00\\x00\\x00\\x02'
    """
    return _DATE


def time_() -> Serde[time]:
    """A time of day, without a zone, as microseconds since midnight, as Kafka's LongSerializer writes them.

    >>> from datetime import time
    >>> time_().deserialize(time_().serialize(time(5, 15)))
    datetime.time(5, 15)
    """
    return _TIME


def datetime_() -> Serde[datetime]:
    """A point in time, with a zone, as microseconds since 1970, as Kafka's LongSerializer writes them.

    It comes back in UTC.

    >>> from datetime import UTC, datetime
    >>> datetime_().serialize(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    b'\\x00\\x00\\x00\\x00\\x00\\x0fB@'
    """
    return _DATETIME


def list_(element: Serde[T]) -> Serde[list[T | None]]:
    """A list, in the format of Kafka's ListSerializer with the Java serializer of ``element`` inside.

    Elements may be None. Elements of ``short``, ``integer``, ``long``, ``float_``, ``double`` and ``uuid`` have a
    constant size and are written without their lengths, all others with them.

    Args:
        element: serde of an element.

    >>> from streamstate import serde
    >>> serde.list_(serde.string()).serialize(["a", None])
    b'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x01a\\xff\\xff\\xff\\xff'
    """
    size = _FIXED.get(element)
    if size is None:
        encode, decode = _variable(element)
    else:
        encode, decode = _constant(element, size)

    def serialize(values: list[T | None]) -> bytes:
        if not isinstance(values, (list, tuple)):
            raise TypeError(f"not {type(values).__name__}")
        return encode(values)

    return Serde(f"list({element.name})", serialize, decode, takes=(list, tuple))


# What writes the elements, and what reads them.
_Format = tuple[Callable[[Sequence[Any]], bytes], Callable[[bytes], list[Any]]]


def _variable(element: Serde[Any]) -> _Format:
    def serialize(values: Sequence[Any]) -> bytes:
        parts = [bytes((_VARIABLE_SIZE,)), _INTEGER.pack(len(values))]
        for value in values:
            data = element.encode(value)
            parts.append(_INTEGER.pack(_NULL if data is None else len(data)))
            parts.append(data or b"")
        return b"".join(parts)

    def deserialize(data: bytes) -> list[Any]:
        count, at = _head(data, _VARIABLE_SIZE), 1 + _INTEGER.size
        values: list[Any] = []
        for _ in range(count):
            (length,) = _INTEGER.unpack_from(data, at)
            at += _INTEGER.size
            if length == _NULL:
                values.append(None)
                continue
            if length < 0 or at + length > len(data):
                raise ValueError(f"an element of {length} bytes at byte {at} of {len(data)}")
            values.append(element.deserialize(data[at : at + length]))
            at += length
        _ended(data, at)
        return values

    return serialize, deserialize


def _constant(element: Serde[Any], size: int) -> _Format:
    def serialize(values: Sequence[Any]) -> bytes:
        nulls = [index for index, value in enumerate(values) if value is None]
        parts = [bytes((_CONSTANT_SIZE,)), _INTEGER.pack(len(nulls))]
        parts += [_INTEGER.pack(index) for index in nulls]
        parts.append(_INTEGER.pack(len(values)))
        parts += [element.encode(value) or b"" for value in values]
        return b"".join(parts)

    def deserialize(data: bytes) -> list[Any]:
        count = _head(data, _CONSTANT_SIZE)
        at = 1 + _INTEGER.size
        nulls = {_INTEGER.unpack_from(data, at + _INTEGER.size * number)[0] for number in range(count)}
        at += _INTEGER.size * count
        (length,) = _INTEGER.unpack_from(data, at)
        at += _INTEGER.size
        if length < 0 or at + size * (length - len(nulls)) != len(data):
            raise ValueError(f"{length} elements, {len(nulls)} of them null, do not make {len(data)} bytes")
        values: list[Any] = []
        for index in range(length):
            if index in nulls:
                values.append(None)
                continue
            values.append(element.deserialize(data[at : at + size]))
            at += size
        return values

    return serialize, deserialize


def _head(data: bytes, strategy: int) -> int:
    """The number behind the first byte, which says how the list was written."""
    if len(data) < 1 + _INTEGER.size or data[0] != strategy:
        raise ValueError(f"a list with these elements begins with the byte {strategy} and a number, not {data[:8]!r}")
    (number,) = _INTEGER.unpack_from(data, 1)
    if not 0 <= number <= len(data):
        raise ValueError(f"a list of {len(data)} bytes cannot hold {number} entries")
    return int(number)


def _ended(data: bytes, at: int) -> None:
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left behind the list")
