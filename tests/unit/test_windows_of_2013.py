"""A year of flights from 2013 by windows of all kinds, on RocksDB; then everything is restored from the changelogs."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from streamstate_cli.demonstration import data

from streamstate import Topology, aggregates, serde, window_close, windows
from streamstate.rocksdb import RocksDisk
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.windows.keys import TIME_KEY

HOUR = timedelta(hours=1)
STORES = ("hourly", "hopping", "sliding", "sessions", "held", "pairs-left", "pairs-waiting")
# Of 336,776 flights each so many, and a commit for each so many of these.
EVERY, COMMIT = 100, 15


def topology() -> Topology:
    topology = Topology("t")
    flights = topology.stream("flights", key=serde.string(), value=serde.json(), timestamp="scheduled_ms")
    by_origin = flights.group_by_key()
    hourly = by_origin.windowed_by(windows.tumbling(HOUR, grace=6 * HOUR))
    hourly.aggregate(
        flights=aggregates.count(), mean=aggregates.mean("dep_delay"),
        carriers=aggregates.approximate_distinct("carrier"), store="hourly", emit="close",
    ).to_stream().to("out", value=serde.json())  # fmt: skip
    hopping = by_origin.windowed_by(windows.hopping(4 * HOUR, HOUR, grace=6 * HOUR)).count(store="hopping")
    hopping.suppress(window_close(), store="held").to_stream().to("final")
    by_origin.windowed_by(windows.sliding(HOUR, grace=6 * HOUR)).count(store="sliding", emit="close").to_stream().to(
        "s"
    )
    by_origin.windowed_by(windows.session(HOUR, grace=6 * HOUR)).count(store="sessions", emit="close").to_stream().to(
        "e"
    )
    flights.left_join(
        flights.filter(lambda origin, flight: flight["carrier"] == "UA"),
        lambda one, other: [one["carrier"], other and other["flight"]],
        within=windows.join(timedelta(minutes=10), grace=6 * HOUR),
        store="pairs",
        other_value=serde.json(),
    ).to("pairs", value=serde.json())
    return topology


def contents(driver: TopologyTestDriver) -> dict[str, dict[bytes, bytes]]:
    assert driver._worker is not None
    [task] = driver._worker.assignment.tasks.values()
    assert task.backend is not None
    return {store: dict(task.backend.scan(store, None, None, False)) for store in STORES}


def test_a_replay_of_2013_restores_to_the_same_bytes(tmp_path: Path) -> None:
    with TopologyTestDriver(topology(), auto_commit=False, disk=RocksDisk(tmp_path)) as driver:
        pipe = driver.input("flights")
        written = 0
        for number, flight in enumerate(islice(data.flights(data.find()), 0, None, EVERY)):
            pipe.pipe(flight["origin"], flight)
            if number % COMMIT == COMMIT - 1:
                driver.commit()
        driver.commit()
        before = contents(driver)
        for store in STORES:
            records = driver.broker.read(f"t-{store}-changelog")
            replayed = {record.key(): record.value() for record in records}
            assert {key: value for key, value in replayed.items() if value is not None} == before[store]
            written = max(written, len(replayed))
            # What is left of a year is a day or so.
            assert TIME_KEY in before[store]
            assert len(before[store]) < 300, store
        results = len(driver.output("out").read_all())
        assert written > 1_000
        assert results > 2_000
        driver.crash(disk="lost")
        assert contents(driver) == before
        pipe.pipe("EWR", {"scheduled_ms": 1_400_000_000_000, "carrier": "UA", "flight": 1, "dep_delay": 0})
        driver.commit()
        closed: list[Any] = driver.output("out").read_all()[results:]
        assert 0 < len(closed) < 60, "what was open at the crash, and nothing twice"
