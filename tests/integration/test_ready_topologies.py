"""Ready topologies as a user runs them: fed by ``streamstate feed``, run by ``streamstate run``, compared with SQL.

The first days of the year, in four partitions, by two processes. `tests/topologies` has the whole year, on the driver.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from streamstate_cli.demonstration import data

from tests.broker_support import eventually
from tests.integration.support import Cluster, Reader
from tests.topologies.source import TOPOLOGIES, database

pytestmark = pytest.mark.broker

FLIGHTS = 10_000
DEADLINE = timedelta(seconds=90)
PROGRAM = [sys.executable, "-m", "streamstate_cli"]


def environment(cluster: Cluster) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMSTATE_")}
    return {**kept, "STREAMSTATE_BOOTSTRAP_SERVERS": cluster.bootstrap_servers}


def command(cluster: Cluster, *arguments: str) -> str:
    done = subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, env=environment(cluster), timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(cluster: Cluster, topology: str, directory: Path) -> Iterator[None]:
    """``streamstate run`` with two worker processes, which end in order."""
    options = ["--workers", "2", "--state-dir", str(directory / "state")]
    with (directory / f"{topology}.log").open("wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, "run", str(TOPOLOGIES / f"{topology}.py"), *options],
            stdout=log,
            stderr=log,
            env=environment(cluster),
        )
        try:
            yield
            process.terminate()
            assert process.wait(60) == 0, Path(log.name).read_text(errors="replace")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(10)


def newest(reader: Reader) -> dict[str, Any]:
    reader.poll()
    return {(record.key or b"").decode(): orjson.loads(record.value or b"null") for record in reader.records}


def test_enriched_and_latest_flights_on_a_broker(cluster: Cluster, tmp_path: Path) -> None:
    arguments = ["feed", "--limit", str(FLIGHTS), "--partitions", "4"]
    assert f"{FLIGHTS:,} records into flights" in command(cluster, *arguments)
    assert f"flights holds {FLIGHTS:,} records already" in command(cluster, *arguments)
    sql = database(data.find(), tmp_path)
    columns = ["tailnum", "carrier", "flight", "origin", "dest", "scheduled_ms", "temp", "model", "seats", "airline"]
    enriched = sql.execute(
        """SELECT flights.tailnum, carrier, flight, origin, dest, scheduled_ms, temp, model, seats, name
           FROM flights LEFT JOIN weather USING (origin, time_hour) LEFT JOIN planes USING (tailnum)
           JOIN airlines USING (carrier) WHERE position <= ?""",
        [FLIGHTS],
    ).fetchall()
    latest = {
        key: {
            "scheduled_ms": scheduled_ms,
            "dest": dest,
            "tailnum": tailnum,
            "plane": known and dict(zip(("manufacturer", "model", "year"), plane, strict=True)),
        }
        for key, scheduled_ms, dest, tailnum, known, *plane in sql.execute(
            """SELECT key, scheduled_ms, dest, flights.tailnum, planes.tailnum, manufacturer, model, planes.year
               FROM (FROM flights WHERE position <= ?
                     QUALIFY row_number() OVER (PARTITION BY key ORDER BY position DESC) = 1) AS flights
               LEFT JOIN planes USING (tailnum)""",
            [FLIGHTS],
        ).fetchall()
    }
    sql.close()
    readers = {}
    for topic in ("enriched-flights", "latest-flights"):
        readers[topic] = Reader(cluster, topic)
    try:
        with running(cluster, "enriched_flights", tmp_path), running(cluster, "latest_flights", tmp_path):
            readers["enriched-flights"].until(FLIGHTS, DEADLINE)
            eventually(lambda: newest(readers["latest-flights"]) == latest, DEADLINE, "the newest flights")
        came = [orjson.loads(record.value or b"") for record in readers["enriched-flights"].drain()]
        readers["latest-flights"].drain()
        assert newest(readers["latest-flights"]) == latest
    finally:
        for reader in readers.values():
            reader.close()
    found = [tuple(flight[name] for name in columns) for flight in came]
    assert len(found) == len(enriched) == FLIGHTS
    assert set(found) == set(enriched)
