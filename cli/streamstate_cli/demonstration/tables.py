"""The records of each topic that ``topologies/`` read: flights, weather, planes, airlines.

Rule of this module: records come as bytes with their event time, so that whoever feeds them, a broker or a test, feeds
the same ones.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from streamstate import serde
from streamstate.errors import ConfigError
from streamstate_cli.demonstration import data

__all__ = ["TOPICS", "Record", "disordered", "records"]

# Key, value, event time in ms.
Record = tuple[bytes, bytes, int]

# The start of 2013 in New York: what has no time of its own was known before the first flight.
BEFORE_MS = 1_357_016_400_000
# How late a record may come in a feed that is in disorder.
LATEST_MS = 3 * 24 * 3_600_000

_json = serde.json().serialize

_WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
_PLANE = ("year", "engines", "seats", "speed", "type", "manufacturer", "model", "engine")
_WORDS = ("type", "manufacturer", "model", "engine")


def records(directory: Path, topic: str, limit: int | None = None) -> Iterator[Record]:
    """What a topic holds, in the order in which it is fed.

    - ``flights``: JSON as `data.flights` makes it, by flight number such as UA1545.
    - ``weather``: JSON, by airport and hour, such as EWR@1357034400000: the hour's start in ms since 1970, which is its
      event time, too.
    - ``planes``: JSON, by tail number.
    - ``airlines``: names, by the two letters of the carrier.

    Args:
        directory: the data files, from `data.find`.
        topic: one of `TOPICS`.
        limit: how many at most.

    Raises:
        ConfigError: a file is missing, damaged, or has other columns.
    """
    try:
        yield from islice(TOPICS[topic](directory), limit)
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"the {topic} in {directory} cannot be read ({error}); reinstall them: {data.INSTALL} --force-reinstall"
        ) from error


def disordered(feed: Iterator[Record], seed: int) -> list[Record]:
    """The same records, each up to three days later among the others, by a seed."""
    chance = Random(seed)
    return sorted(feed, key=lambda record: record[2] + chance.randrange(LATEST_MS))


def _flights(directory: Path) -> Iterator[Record]:
    for flight in data.flights(directory):
        yield data.key_of(flight).encode(), _json(flight), flight["scheduled_ms"]


def _weather(directory: Path) -> Iterator[Record]:
    # The file has one airport after the other. In a topic of reports as they come in, the hours are in order: a join
    # that takes its inputs by time meets each before the flights of its hour.
    for row in sorted(_rows(directory, "weather.csv"), key=lambda row: str(row["time_hour"])):
        start_ms = int(datetime.fromisoformat(row["time_hour"]).timestamp()) * 1000
        report = {name: _number(row[name]) for name in _WEATHER}
        yield f"{row['origin']}@{start_ms}".encode(), _json(report), start_ms


def _planes(directory: Path) -> Iterator[Record]:
    for row in _rows(directory, "planes.csv"):
        plane = {name: _word(row[name]) if name in _WORDS else _number(row[name]) for name in _PLANE}
        yield row["tailnum"].encode(), _json(plane), BEFORE_MS


def _airlines(directory: Path) -> Iterator[Record]:
    for row in _rows(directory, "airlines.csv"):
        yield row["carrier"].encode(), row["name"].encode(), BEFORE_MS


def _rows(directory: Path, name: str) -> Iterator[dict[str, Any]]:
    with (directory / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _word(text: str) -> str | None:
    return None if text in data.MISSING else text


def _number(text: str) -> float | int | None:
    if text in data.MISSING:
        return None
    return int(text) if text.isdecimal() else float(text)


# What others are joined with comes first.
TOPICS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "airlines": _airlines,
    "planes": _planes,
    "weather": _weather,
    "flights": _flights,
}
