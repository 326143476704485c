"""JSON by orjson, but for what orjson changes in silence: integers beyond 64 bits are rounded, NaN is written as null.

Rule of this module: orjson does the work. What it would change is noticed by the cheapest exact means, and only then
read or written in another way: ``docs/decisions/0027-values-keep-what-they-are.md`` has the numbers.
"""

from __future__ import annotations

import json as standard
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

import orjson

from streamstate.serde._base import Serde

__all__ = ["finite", "json"]

# What orjson reads and writes as it is.
LEAST: Final = -(1 << 63)
MOST: Final = (1 << 64) - 1
# Integers beyond that have 20 digits, or 19 behind a minus. To find as many side by side, all are made the same first.
SAME_DIGIT: Final = bytes(ord("0") if byte in b"0123456789" else byte for byte in range(256))
RUN: Final = b"0" * 19
LONG_RUN: Final = b"0" * 20
NEGATIVE_RUN: Final = b"-" + RUN

# Values that are never NaN.
_SAFE: Final = frozenset((int, str, bool, type(None)))


def _loads(data: bytes) -> Any:
    value = orjson.loads(data)
    if len(data) > 18:
        # ``partition`` takes one argument, which makes it the cheapest of the calls that search.
        digits = data.translate(SAME_DIGIT)
        if digits.partition(RUN)[1] and (digits.partition(LONG_RUN)[1] or digits.partition(NEGATIVE_RUN)[1]):
            return _exactly(data, digits, value)
    return value


def _exactly(data: bytes, digits: bytes, value: Any) -> Any:
    """The value with integers of any size.

    Args:
        data: the bytes.
        digits: the same with all digits made the same.
        value: what orjson made of the bytes; what is JSON at all, it has said.
    """
    start = digits.find(RUN)
    while start >= 0:
        end = start + len(RUN)
        while digits.startswith(b"0", end):
            end += 1
        first = start - 1 if data[start - 1 : start] == b"-" else start
        # In text, and behind a decimal point, they make no difference but for the time.
        if end - start > 20 or not LEAST <= int(data[first:end]) <= MOST:
            return standard.loads(data)
        start = digits.find(RUN, end)
    return value


def _dumps(value: Any) -> bytes:
    # A copy of the right size. orjson (3.13) leaves each result in a block of 4 KB: 40 times the memory of what waits
    # to be sent, and slower than the copy as soon as a few results are kept.
    try:
        before, null, rest = orjson.dumps(value).partition(b"null")
    except TypeError:
        return _dumps_large(value, 0)
    if null:
        _refuse_nan(value)
        return before + null + rest
    return b"%b" % before


def _dumps_sorted(value: Any) -> bytes:
    try:
        before, null, rest = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).partition(b"null")
    except TypeError:
        return _dumps_large(value, orjson.OPT_SORT_KEYS)
    if null:
        _refuse_nan(value)
        return before + null + rest
    return b"%b" % before


def _dumps_large(value: Any, option: int) -> bytes:
    """What orjson refused, with integers of any size."""
    data = orjson.dumps(_with_large(value), option=option)
    _refuse_nan(value)
    return b"%b" % data


def _with_large(value: Any) -> Any:
    """The value with what orjson writes unchanged in place of integers that it does not write."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if LEAST <= value <= MOST:
            return value
        # Fails beyond the range of floats, where orjson reads no integers either.
        float(value)
        return orjson.Fragment(b"%d" % value)
    if isinstance(value, dict):
        return {key: _with_large(item) for key, item in value.items()}
    if type(value) in (list, tuple) or isinstance(value, list):
        return [_with_large(item) for item in value]
    return value


def _refuse_nan(value: Any) -> None:
    """To be asked where a null was written: raise if there is a float that JSON does not have."""
    if not finite((value,)):
        raise ValueError("JSON has no NaN and no infinities: leave them out, or write None")


def finite(items: Iterable[Any]) -> bool:
    """Whether no float in them, at any depth that orjson reaches, is NaN or infinite."""
    for item in items:
        kind = type(item)
        if kind in _SAFE:
            continue
        if kind is float:
            if item - item != 0.0:
                return False
        elif isinstance(item, dict):
            if not finite(item.values()):
                return False
        elif isinstance(item, (list, tuple)):
            if not finite(item):
                return False
        elif is_dataclass(item):
            if not finite(getattr(item, field.name) for field in fields(item)):
                return False
        elif isinstance(item, Enum) and not finite((item.value,)):
            return False
    return True


_JSON: Serde[Any] = Serde("json", _dumps, _loads)
_JSON_SORTED: Serde[Any] = Serde("json(sort_keys)", _dumps_sorted, _loads)


def json(*, sort_keys: bool = False) -> Serde[Any]:
    """JSON by orjson: UTF-8, no white space; datetimes as RFC 3339, integers of any size.

    NaN and infinities are refused, which JSON does not have.

    Args:
        sort_keys: write object keys in order. Use it for keys: equal objects must be equal bytes to meet in
            the same partition and store entry.

    >>> json().serialize({"b": 1, "a": [None, 2.5]})
    b'{"b":1,"a":[null,2.5]}'
    >>> json(sort_keys=True).serialize({"b": 1, "a": 2})
    b'{"a":2,"b":1}'
    >>> json().deserialize(b'{"id":147573952589676412928}')
    {'id': 147573952589676412928}
    """
    return _JSON_SORTED if sort_keys else _JSON
