"""Each ready topology over the flights of 2013, against the same question in SQL, asked of the source files by DuckDB.

Every row is compared. What a topology sends when windows close is compared as such: at the end of the feed the windows
that it has closed, each once; then a flight of a later day closes the rest.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from streamstate_cli.demonstration import data, tables
from streamstate_cli.demonstration.tables import Record

from streamstate import serde
from streamstate.rocksdb import RocksDisk
from streamstate.testing.driver.driver import TopologyTestDriver
from tests.topologies.source import DAY_MS, FLIGHTS, HOUR_MS, WHOLE_YEAR, database, fed, stored, windows_of

Feeds = Mapping[str, list[Record]]
Database = duckdb.DuckDBPyConnection


@pytest.fixture(scope="module")
def feeds() -> Iterator[Feeds]:
    """Every topic's records, as ``streamstate feed`` sends them."""
    directory = data.find()
    found = {topic: list(tables.records(directory, topic)) for topic in tables.TOPICS}
    found["flights"] = found["flights"][:FLIGHTS]
    if not WHOLE_YEAR:
        # An hour's weather meets the flights of that hour.
        last_ms = max(time_ms for _, _, time_ms in found["flights"])
        found["weather"] = [record for record in found["weather"] if record[2] <= last_ms]
    # Millions of records that all stay: looking for garbage among them takes as long as the topologies do.
    gc.collect()
    gc.disable()
    yield found
    gc.enable()


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with closing(database(data.find(), tmp_path_factory.mktemp("source"))) as connection:
        yield connection


@pytest.fixture(autouse=True)
def what_the_last_one_left() -> Iterator[None]:
    yield
    gc.collect()


def rows(sql: Database, query: str, **values: Any) -> list[tuple[Any, ...]]:
    return sql.execute(query, values).fetchall()


def test_the_feed_is_the_source(feeds: Feeds, sql: Database) -> None:
    columns = "carrier, flight, tailnum, origin, dest, dep_delay, arr_delay, distance, scheduled_ms"
    names = columns.split(", ")
    wanted = rows(sql, f"SELECT key, {columns} FROM flights ORDER BY position")
    assert len(wanted) == FLIGHTS
    for (key, value, time_ms), row in zip(feeds["flights"], wanted, strict=True):
        flight = orjson.loads(value)
        assert (key.decode(), *(flight[name] for name in names)) == row
        assert time_ms == flight["scheduled_ms"]
    hours = "SELECT count(DISTINCT (origin, time_hour)) FROM weather WHERE epoch_ms(time_hour) <= $end_ms"
    end_ms = max(time_ms for _, _, time_ms in feeds["weather" if WHOLE_YEAR else "flights"])
    assert len(feeds["weather"]) == rows(sql, hours, end_ms=end_ms)[0][0]
    assert len(feeds["weather"]) == 26_115 or not WHOLE_YEAR
    assert len({key for key, _, _ in feeds["planes"]}) == rows(sql, "SELECT count(*) FROM planes")[0][0] == 3_322
    assert {(k.decode(), v.decode()) for k, v, _ in feeds["airlines"]} == set(rows(sql, "FROM airlines"))


def restored_as_it_was(driver: TopologyTestDriver, most: Mapping[str, int]) -> None:
    """The disk is lost: a year of windows is restored from the changelogs, to the same entries.

    Args:
        driver: has processed the year, with its state on a disk.
        most: how many entries a store may have at the most: what has closed is gone.
    """
    before = stored(driver)
    assert {name for *_, name in before} == set(most)
    for (*_, name), entries in before.items():
        assert 10 < len(entries) < most[name], (name, len(entries))
    driver.crash(disk="lost")
    assert stored(driver) == before


# -- windows -----------------------------------------------------------------------------------------------

DELAYS = """
    SELECT origin, start, start + $size, count(*), avg(dep_delay), max(dep_delay)
    FROM (
        SELECT *, unnest(range(scheduled_ms // $hop * $hop - $size + $hop, scheduled_ms + 1, $hop)) AS start
        FROM flights)
    GROUP BY ALL"""


def delays(value: Any) -> tuple[int, float | None, int | None]:
    return value["flights"], value["mean_delay"], value["max_delay"]


def close_all(driver: TopologyTestDriver, feeds: Feeds) -> None:
    """A flight of a day on which nothing of the year is open any more."""
    key, value, _ = feeds["flights"][0]
    later_ms = feeds["flights"][-1][2] + 10 * DAY_MS
    driver.input("flights", value=serde.json()).pipe(key.decode(), {**orjson.loads(value), "scheduled_ms": later_ms})


def test_delays_by_hour_and_by_three_hours(feeds: Feeds, sql: Database, tmp_path: Path) -> None:
    [(end_ms,)] = rows(sql, "SELECT max(scheduled_ms) FROM flights")
    hours = {row[:3]: row[3:] for row in rows(sql, DELAYS, size=HOUR_MS, hop=HOUR_MS)}
    with fed("hourly_delays", {"flights": feeds["flights"]}, RocksDisk(tmp_path)) as driver:
        assert driver.status().dropped == 0
        restored_as_it_was(driver, {"hourly": 1_000, "recent": 1_000})
        recent: Any = driver.output("recent-delays").newest()
        closed = windows_of(driver, "hourly-delays")
        assert closed.keys() == {at for at in hours if at[2] + DAY_MS <= end_ms}
        close_all(driver, feeds)
        closed = windows_of(driver, "hourly-delays")
    assert {at: delays(value) for at, value in closed.items()} == hours
    assert len(hours) > (19_000 if WHOLE_YEAR else 2_500)
    found = {(window.key, window.start, window.end): delays(value) for window, value in recent.items()}
    assert found == {row[:3]: row[3:] for row in rows(sql, DELAYS, size=3 * HOUR_MS, hop=HOUR_MS)}


SESSIONS = """
    WITH departures AS (
        SELECT *, scheduled_ms - lag(scheduled_ms) OVER (PARTITION BY tailnum ORDER BY scheduled_ms, position) AS gap
        FROM flights WHERE tailnum IS NOT NULL
    ), numbered AS (
        SELECT *, count(*) FILTER (gap IS NULL OR gap > 12 * 3600000)
            OVER (PARTITION BY tailnum ORDER BY scheduled_ms, position ROWS UNBOUNDED PRECEDING) AS session
        FROM departures
    )
    SELECT tailnum, min(scheduled_ms), max(scheduled_ms), count(*), sum(distance), max(dep_delay)
    FROM numbered GROUP BY tailnum, session"""


def test_sessions_of_each_aircraft(feeds: Feeds, sql: Database, tmp_path: Path) -> None:
    [(end_ms,)] = rows(sql, "SELECT max(scheduled_ms) FROM flights")
    wanted = {row[:3]: row[3:] for row in rows(sql, SESSIONS)}
    with fed("aircraft_sessions", {"flights": feeds["flights"]}, RocksDisk(tmp_path)) as driver:
        assert driver.status().dropped == 0
        restored_as_it_was(driver, {"sessions": 5_000})
        closed = windows_of(driver, "aircraft-sessions")
        assert closed.keys() == {at for at in wanted if at[2] + 12 * HOUR_MS + DAY_MS < end_ms}
        close_all(driver, feeds)
        closed = windows_of(driver, "aircraft-sessions")
    assert {at: (v["flights"], v["miles"], v["worst_delay"]) for at, v in closed.items()} == wanted
    assert len(wanted) > (100_000 if WHOLE_YEAR else 12_000)


def test_every_flight_is_counted_or_late(feeds: Feeds, sql: Database, tmp_path: Path) -> None:
    shuffled = tables.disordered(iter(feeds["flights"]), seed=1)
    place = {(key, time_ms): number for number, (key, _, time_ms) in enumerate(shuffled)}
    order = tmp_path / "order.csv"
    order.write_text("".join(f"{key.decode()},{time_ms},{number}\n" for (key, time_ms), number in place.items()))
    sql.execute(f"""
        CREATE OR REPLACE TEMP TABLE arrived AS
        -- The operator's time: the greatest of all that it has seen, the record in hand included.
        SELECT flights.*, place, max(scheduled_ms) OVER (ORDER BY place) AS reached
        FROM flights JOIN read_csv('{order}', names = ['key', 'scheduled_ms', 'place']) USING (key, scheduled_ms)""")
    [(count, end_ms)] = rows(sql, "SELECT count(*), max(reached) FROM arrived")
    assert count == FLIGHTS
    late = """
        SELECT *, scheduled_ms // 3600000 * 3600000 AS start, reached - 86400000 - (start + 3600000) AS late_ms
        FROM arrived"""
    with fed("late_flights", {"flights": shuffled}) as driver:
        assert driver.status().dropped == 0
        aside = driver.output("late-flights", key=serde.string(), value=serde.json()).read_all()
        at_the_end = windows_of(driver, "flights-per-hour")
        close_all(driver, feeds)
        closed = windows_of(driver, "flights-per-hour")
    wanted = rows(sql, f"SELECT origin, key, scheduled_ms, late_ms FROM ({late}) WHERE late_ms >= 0 ORDER BY place")
    found = []
    for record in aside:
        flight: Any = record.value
        [(name, late_ms)] = record.headers
        assert (name, record.timestamp) == ("streamstate.late_ms", flight["scheduled_ms"])
        number = f"{flight['carrier']}{flight['flight']}"
        found.append((record.key, number, flight["scheduled_ms"], int(late_ms or b"")))
    assert found == wanted
    assert FLIGHTS // 34 < len(found) < FLIGHTS - FLIGHTS // 10
    counts = f"SELECT origin, start, start + 3600000, count(*) FROM ({late}) WHERE late_ms < 0 GROUP BY ALL"
    assert closed == {row[:3]: row[3] for row in rows(sql, counts)}
    assert at_the_end.keys() == {at for at in closed if at[2] + DAY_MS <= end_ms}
    assert sum(closed.values()) + len(found) == FLIGHTS


# -- tables ------------------------------------------------------------------------------------------------


def test_the_ten_busiest_routes_of_each_airport(feeds: Feeds, sql: Database) -> None:
    with fed("route_ranking", {"flights": feeds["flights"]}) as driver:
        assert driver.output("busiest-routes").newest() == {
            origin: [list(route) for route in ranking]
            for origin, ranking in rows(
                sql,
                """SELECT origin, list((dest, flights) ORDER BY flights DESC, dest)[:10]
                   FROM (SELECT origin, dest, count(*) AS flights FROM flights GROUP BY ALL) GROUP BY origin""",
            )
        }
        counts = {(route[:3], route[4:]): number for route, number in driver.store("routes").all()}
        rankings = {(o, d): number for o, ranking in driver.store("rankings").all() for d, number in ranking.items()}
    wanted = {row[:2]: row[2] for row in rows(sql, "SELECT origin, dest, count(*) FROM flights GROUP BY ALL")}
    assert counts == rankings == wanted


def test_the_newest_flight_of_each_number_with_its_aircraft(feeds: Feeds, sql: Database) -> None:
    with fed("latest_flights", {topic: feeds[topic] for topic in ("planes", "flights")}) as driver:
        newest: Any = driver.output("latest-flights").newest()
    found = {
        (number, *(row[name] for name in ("scheduled_ms", "dest", "tailnum")), *(row["plane"] or NO_PLANE).values())
        for number, row in newest.items()
    }
    wanted = rows(
        sql,
        """SELECT key, scheduled_ms, dest, flights.tailnum, manufacturer, model, planes.year
           FROM (FROM flights QUALIFY row_number() OVER (PARTITION BY key ORDER BY position DESC) = 1) AS flights
           LEFT JOIN planes USING (tailnum)""",
    )
    assert found == set(wanted)
    assert len(newest) == len(wanted) == rows(sql, "SELECT count(DISTINCT key) FROM flights")[0][0]


NO_PLANE = {"manufacturer": None, "model": None, "year": None}


def test_flights_with_their_weather_aircraft_and_airline(feeds: Feeds, sql: Database) -> None:
    with fed("enriched_flights", feeds) as driver:
        assert driver.status().dropped == 0
        records = driver.output("enriched-flights", key=serde.bytes_(), value=serde.bytes_()).read_all()
    columns = (
        "tailnum", "carrier", "flight", "origin", "dest", "scheduled_ms", "dep_delay", "arr_delay", "distance",
        "temp", "wind_speed", "visib", "model", "seats", "airline",
    )  # fmt: skip
    wanted = rows(
        sql,
        """SELECT flights.tailnum, carrier, flight, origin, dest, scheduled_ms, dep_delay, arr_delay, distance,
                  temp, wind_speed, visib, model, seats, name
           FROM flights LEFT JOIN weather USING (origin, time_hour) LEFT JOIN planes USING (tailnum)
           JOIN airlines USING (carrier)""",
    )
    found = []
    for record in records:
        flight = orjson.loads(record.value or b"")
        assert record.key == (flight["tailnum"] and flight["tailnum"].encode())
        assert record.timestamp == flight["scheduled_ms"]
        found.append(tuple(flight[name] for name in columns))
    assert len(found) == len(wanted) == len(set(wanted)) == FLIGHTS
    assert set(found) == set(wanted)
