"""JSON that keeps what JSON does not have: the states of aggregates as bytes.

Rule of this module: ``decode(encode(value))`` is the value with the types that it had, at any depth, or ``encode``
refuses. A type is refused when it is not one of ``KINDS``: a subclass too, because it would come back as its base.

JSON's own values are written as they are, all others as an object with one key, the tag: bytes as ``{"base64": ...}``,
as all versions have written them, the rest as ``{"$type": [name, ...]}``. A dict that looks like a tag is written under
one itself. So a list begins with ``[`` whatever it holds, and what older versions wrote reads as it did.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

__all__ = ["KINDS", "canonical", "decode", "encode", "list_encoder"]

BYTES: Final = "base64"
TYPE: Final = "$type"
BYTES_MARK: Final = b'{"%b":' % BYTES.encode()
TYPE_MARK: Final = b'{"%b":' % TYPE.encode()

# What JSON has of integers here: signed or unsigned 64 bits.
LEAST: Final = -(1 << 63)
MOST: Final = (1 << 64) - 1
# Values that orjson writes and reads as they are, and bytes, which ``_bytes`` writes.
AS_THEY_ARE: Final = frozenset((int, str, bool, type(None), bytes))


def _bytes(value: bytes) -> dict[str, str]:
    return {BYTES: b64encode(value).decode()}


def _exact(items: Iterable[Any]) -> bool:
    """Whether orjson alone keeps all of them; too large integers and keys that are no text it refuses itself."""
    for item in items:
        kind = type(item)
        if kind in AS_THEY_ARE:
            continue
        if kind is float:
            # Not so of infinities and of what is no number, both of which orjson writes as null.
            if item - item != 0.0:
                return False
        elif kind is list:
            # Most lists in states hold one or two such values: looked at here, without a call.
            for inner in item:
                kind = type(inner)
                if kind not in AS_THEY_ARE and (kind is not float or inner - inner != 0.0):
                    if not _exact(item):
                        return False
                    break
        elif kind is dict:
            if (len(item) == 1 and (BYTES in item or TYPE in item)) or not _exact(item.values()):
                return False
        else:
            return False
    return True


def encode(value: Any) -> bytes:
    """A value as bytes.

    Raises:
        TypeError: it holds something of a type that would not come back.

    >>> encode([1, b"hi", {"base64": "aGk="}])
    b'[1,{"base64":"aGk="},{"$type":["dict",[["base64","aGk="]]]}]'
    >>> decode(_)
    [1, b'hi', {'base64': 'aGk='}]
    """
    try:
        if _exact((value,)):
            return orjson.dumps(value, default=_bytes)
    except (TypeError, RecursionError):
        # What refuses here is found out, and named, below.
        pass
    try:
        return orjson.dumps(_written(value))
    except RecursionError:
        raise TypeError("it holds itself, or is nested too deep") from None


def canonical(value: Any) -> bytes:
    """As ``encode``, but equal for dicts that differ in their order only; not to be decoded.

    >>> canonical({1: b"a", 2: [0.5]}) == canonical({2: [0.5], 1: b"a"})
    True
    """
    return orjson.dumps(_sorted(_written(value)), option=orjson.OPT_SORT_KEYS)


def _sorted(written: Any) -> Any:
    if type(written) is list:
        return [_sorted(item) for item in written]
    if type(written) is not dict:
        return written
    parts = written.get(TYPE)
    if len(written) == 1 and type(parts) is list and parts[0] == "dict":
        return {TYPE: ["dict", sorted((_sorted(pair) for pair in parts[1]), key=canonical)]}
    return {key: _sorted(item) for key, item in written.items()}


def list_encoder(where: Callable[[int], str]) -> Callable[[list[Any]], bytes]:
    """``encode`` for lists, with errors that say which item it was.

    Args:
        where: the place of the item of this index, for errors.
    """

    def encode_list(items: list[Any]) -> bytes:
        try:
            if _exact(items):
                return orjson.dumps(items, default=_bytes)
        except (TypeError, RecursionError):
            # As above.
            pass
        for index, item in enumerate(items):
            try:
                encode(item)
            except TypeError as error:
                raise TypeError(f"{where(index)} cannot be kept: {error}") from error
        return encode(items)

    return encode_list


def decode(data: bytes) -> Any:
    """What ``encode`` made the bytes of, and what older versions wrote: bytes at any depth under their tag.

    Raises:
        ValueError: it is no JSON, or holds a tag of a later version.
    """
    value = orjson.loads(data)
    # Where nothing is found, ``partition`` costs less than ``find``.
    if data.partition(b"{")[1] and (data.find(TYPE_MARK) >= 0 or data.find(BYTES_MARK) >= 0):
        return _read(value)
    return value


# -- writing -----------------------------------------------------------------------------------------------


def _written(value: Any) -> Any:
    """The value in what JSON has."""
    write = _WRITERS.get(type(value))
    if write is None:
        raise TypeError(
            f"it holds a value of type {_name(type(value))}, which would not come back as one: make it one of "
            f"{', '.join(kind.__name__ for kind in KINDS)} before it goes in"
        )
    return write(value)


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _same(value: Any) -> Any:
    return value


def _tagged(name: str, parts: Callable[[Any], list[Any]]) -> Callable[[Any], Any]:
    return lambda value: {TYPE: [name, *parts(value)]}


def _write_int(value: int) -> Any:
    # By base 16: Python reads and writes no more than 4,300 decimal digits.
    return value if LEAST <= value <= MOST else {TYPE: ["int", hex(value)]}


def _write_float(value: float) -> Any:
    return value if value - value == 0.0 else {TYPE: ["float", repr(value)]}


def _write_dict(value: dict[Any, Any]) -> Any:
    if all(type(key) is str for key in value) and not (len(value) == 1 and (BYTES in value or TYPE in value)):
        return {key: _written(item) for key, item in value.items()}
    return {TYPE: ["dict", [[_written(key), _written(item)] for key, item in value.items()]]}


def _in_order(items: Iterable[Any]) -> list[Any]:
    # Equal sets must be equal bytes; Python orders them as each process hashes.
    return sorted((_written(item) for item in items), key=orjson.dumps)


def _write_zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [offset // timedelta(microseconds=1), *name]
    if type(zone) is ZoneInfo and zone.key is not None and zone is ZoneInfo(zone.key):
        return zone.key
    raise TypeError(
        f"it holds a time with a time zone of type {_name(type(zone))}, which would not come back as one: use "
        "datetime.timezone or zoneinfo.ZoneInfo"
    )


def _write_datetime(value: datetime) -> list[Any]:
    return [value.replace(tzinfo=None, fold=0).isoformat(), _write_zone(value.tzinfo), value.fold]


def _write_time(value: time) -> list[Any]:
    return [value.replace(tzinfo=None, fold=0).isoformat(), _write_zone(value.tzinfo), value.fold]


# -- reading -----------------------------------------------------------------------------------------------


def _read(value: Any) -> Any:
    """What ``_written`` was given; lists and dicts are changed in place."""
    if type(value) is list:
        for index, item in enumerate(value):
            if type(item) is list or type(item) is dict:
                value[index] = _read(item)
        return value
    if type(value) is not dict:
        return value
    if len(value) == 1:
        ((tag, parts),) = value.items()
        if tag == TYPE and type(parts) is list:
            return _read_tag(parts)
        if tag == BYTES and type(parts) is str:
            try:
                return b64decode(parts, validate=True)
            except NotBase64:
                # Older versions wrote dicts that look like this as they were.
                return value
    for key, item in value.items():
        if type(item) is list or type(item) is dict:
            value[key] = _read(item)
    return value


def _read_tag(parts: list[Any]) -> Any:
    name, *rest = parts
    read = _READERS.get(name)
    if read is None:
        raise ValueError(f"a value of the kind {name!r}, which this version does not know: a later one wrote it")
    return read(*rest)


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if type(zone) is str:
        return ZoneInfo(zone)
    offset, *name = zone
    return timezone(timedelta(microseconds=offset), *name)


def _read_datetime(text: str, zone: Any, fold: int) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=_read_zone(zone), fold=fold)


def _read_time(text: str, zone: Any, fold: int) -> time:
    return time.fromisoformat(text).replace(tzinfo=_read_zone(zone), fold=fold)


_WRITERS: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): _same,
    bool: _same,
    int: _write_int,
    float: _write_float,
    str: _same,
    bytes: _bytes,
    list: lambda value: [_written(item) for item in value],
    dict: _write_dict,
    tuple: _tagged("tuple", lambda value: [[_written(item) for item in value]]),
    set: _tagged("set", lambda value: [_in_order(value)]),
    frozenset: _tagged("frozenset", lambda value: [_in_order(value)]),
    Decimal: _tagged("decimal", lambda value: [str(value)]),
    datetime: _tagged("datetime", _write_datetime),
    date: _tagged("date", lambda value: [value.isoformat()]),
    time: _tagged("time", _write_time),
    timedelta: _tagged("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    UUID: _tagged("uuid", lambda value: [value.hex]),
}
# The types that come back, as they go in.
KINDS: Final = tuple(_WRITERS)

_READERS: Final[dict[Any, Callable[..., Any]]] = {
    "int": lambda digits: int(digits, 16),
    "float": float,
    "dict": lambda pairs: {_read(key): _read(item) for key, item in pairs},
    "tuple": lambda items: tuple(_read(items)),
    "set": lambda items: set(_read(items)),
    "frozenset": lambda items: frozenset(_read(items)),
    "decimal": Decimal,
    "datetime": _read_datetime,
    "date": date.fromisoformat,
    "time": _read_time,
    "timedelta": timedelta,
    "uuid": UUID,
}
