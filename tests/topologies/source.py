"""The source files in DuckDB, and the ready topologies on the test driver.

``make test`` takes the flights of the first weeks of 2013, ``make year`` those of the whole year.

Rule of this module: DuckDB reads the files itself, and knows nothing of what we make of them.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
from streamstate_cli.demonstration.tables import Record
from streamstate_cli.loader import load_topology

from streamstate import serde
from streamstate.testing.driver.driver import StateDisk, TopologyTestDriver

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
WHOLE_YEAR = bool(os.environ.get("STREAMSTATE_TEST_WHOLE_YEAR"))
# In the order of the feed.
FLIGHTS = 336_776 if WHOLE_YEAR else 45_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def database(directory: Path, scratch: Path) -> duckdb.DuckDBPyConnection:
    """The tables ``flights`` (with ``key``, ``scheduled_ms`` and ``position``, the place in the feed), ``weather``,
    ``planes`` and ``airlines``.

    Args:
        directory: the source files.
        scratch: takes what has to be unpacked.
    """
    with zipfile.ZipFile(directory / "flights.csv.zip") as archive:
        archive.extract("flights.csv", scratch)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"""
        CREATE TABLE flights AS
        WITH file AS (SELECT *, row_number() OVER () AS line FROM read_csv('{scratch}/flights.csv', nullstr = 'NA'))
        SELECT *, carrier || flight AS key, epoch_ms(time_hour) + minute * 60000 AS scheduled_ms,
               row_number() OVER (ORDER BY month, day, line) AS position
        FROM file""")
    connection.execute("DELETE FROM flights WHERE position > $most", {"most": FLIGHTS})
    for name in ("weather", "planes", "airlines"):
        connection.execute(f"CREATE TABLE {name} AS FROM read_csv('{directory}/{name}.csv', nullstr = 'NA')")
    return connection


def fed(name: str, topics: Mapping[str, Iterable[Record]], disk: StateDisk | None = None) -> TopologyTestDriver:
    """A driver of a ready topology which has processed these records; state is in memory unless there is a disk."""
    driver = TopologyTestDriver(load_topology(str(TOPOLOGIES / f"{name}.py")), disk=disk)
    with driver.backlog():
        for topic, records in topics.items():
            pipe = driver.input(topic, key=serde.bytes_(), value=serde.bytes_()).pipe
            for key, value, time_ms in records:
                pipe(key, value, timestamp=time_ms)
    return driver


def stored(driver: TopologyTestDriver) -> dict[tuple[str, int, str], dict[bytes, bytes]]:
    """Every entry of every store, as it is on the disk."""
    return {
        (task.id.subtopology, task.id.partition, name): dict(task.backend.scan(name, None, None, False))
        for task in driver.tasks
        if task.backend is not None
        for name in task.stores
    }


def windows_of(driver: TopologyTestDriver, topic: str) -> dict[tuple[str, int, int], Any]:
    """The only result of each window in a topic whose windows are sent when they close."""
    found: dict[tuple[str, int, int], Any] = {}
    for record in driver.output(topic).read_all():
        window: Any = record.key
        at = (window.key, window.start, window.end)
        assert at not in found, f"{topic} has two results of {at}"
        found[at] = record.value
    return found
