"""Durations and sizes as people write them.

Rule of this module: what ``show`` writes, ``parse`` reads again as the same value.
"""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["Duration", "parse_duration", "parse_size", "show_duration", "show_size"]

# How users give durations: ``timedelta(minutes=5)`` or ``"5m"``.
Duration = timedelta | str

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_UNITS_BYTES = {
    "": 1,
    "b": 1,
    **{unit: 1 << shift for shift, names in ((10, "k kib"), (20, "m mib"), (30, "g gib")) for unit in names.split()},
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}


def parse_duration(value: object) -> timedelta:
    """A duration as people write it.

    Raises:
        ValueError: it is none.

    >>> parse_duration("100ms"), parse_duration("1m30s")
    (datetime.timedelta(microseconds=100000), datetime.timedelta(seconds=90))
    """
    text = str(value).strip().lower().replace(" ", "")
    if text == "0":
        return timedelta(0)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text or isinstance(value, bool):
        raise ValueError("is not a duration: write a number with its unit, such as 100ms, 1.5s, 2m or 1h")
    return timedelta(milliseconds=round(sum(float(number) * _UNITS_MS[unit] for number, unit in parts)))


def show_duration(value: timedelta) -> str:
    """The shortest text for a duration.

    >>> [show_duration(timedelta(seconds=seconds)) for seconds in (0, 0.1, 10, 90, 600)]
    ['0', '100ms', '10s', '90s', '10m']
    """
    milliseconds = value // timedelta(milliseconds=1)
    for unit in ("d", "h", "m", "s", "ms"):
        if milliseconds and milliseconds % _UNITS_MS[unit] == 0:
            return f"{milliseconds // _UNITS_MS[unit]}{unit}"
    return "0"


def parse_size(value: object) -> int:
    """Bytes as people write them. K, M, G and KiB, MiB, GiB are powers of 1024; KB, MB, GB of 1000.

    Raises:
        ValueError: it is no size.

    >>> parse_size("64MiB"), parse_size("1.5k"), parse_size(4096)
    (67108864, 1536, 4096)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]*)", str(value).strip().lower().replace(" ", "").replace("_", ""))
    if found is None or found[2] not in _UNITS_BYTES or isinstance(value, bool):
        raise ValueError("is not a size: write bytes, or a number with a unit, such as 64MiB or 1GiB")
    return round(float(found[1]) * _UNITS_BYTES[found[2]])


def show_size(value: int) -> str:
    """The shortest text for a number of bytes.

    >>> show_size(64 << 20), show_size(1000)
    ('64MiB', '1000')
    """
    for unit in ("gib", "mib", "kib"):
        if value and value % _UNITS_BYTES[unit] == 0:
            return f"{value // _UNITS_BYTES[unit]}{unit[0].upper()}iB"
    return str(value)
