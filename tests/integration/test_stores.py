"""Stores of processors on a real broker, through a kill and a lost disk: all results, in order."""

from __future__ import annotations

import random
import shutil

import pytest
from confluent_kafka import Producer

from streamstate.testing.driver.driver import TopologyTestDriver
from tests.integration.support import Application, Record
from tests.integration.topologies import stores_of_all_kinds

pytestmark = pytest.mark.broker

BASE_MS = 1_357_000_000_000
RECORDS = 1_500


def truth(records: list[Record]) -> list[tuple[bytes | None, bytes | None, int]]:
    """What the topology makes of one partition, by the driver."""
    with TopologyTestDriver(stores_of_all_kinds("numbers", "told"), auto_commit=False) as driver:
        for record in records:
            assert record.key is not None
            assert record.value is not None
            driver.input("numbers").pipe(record.key.decode(), record.value.decode(), timestamp=record.timestamp)
        driver.commit()
        return [(r.key(), r.value(), r.timestamp()[1]) for r in driver.broker.read("told")]


def test_every_kind_of_store_survives_a_kill_and_a_lost_disk(application: Application) -> None:
    # Of 2013: a topic that is deleted by time would lose them.
    numbers, told = (application.create(name, 2, {"retention.ms": "-1"}) for name in ("numbers", "told"))
    chance = random.Random(7)
    producer = Producer({"bootstrap.servers": application.cluster.bootstrap_servers, "enable.idempotence": True})
    time = BASE_MS

    def feed() -> None:
        nonlocal time
        for number in range(RECORDS):
            partition = chance.randrange(2)
            time += chance.choice((1, 20, 300, 1_000))
            at = max(BASE_MS, time - chance.randrange(2_000))
            key = f"{partition}{chance.choice('abcdef')}".encode()
            producer.produce(numbers, b"%d" % number, key, partition=partition, timestamp=at)
        assert producer.flush(30) == 0

    feed()
    arguments = {"numbers": numbers, "told": told}
    reader = application.reader(told)
    first = application.start("stores_of_all_kinds", arguments)
    reader.until(400)
    first.kill()
    feed()
    second = application.start("stores_of_all_kinds", arguments)
    reader.until(reader.poll() + 300)
    second.kill()
    shutil.rmtree(application.directory / "state")
    feed()
    third = application.start("stores_of_all_kinds", arguments)
    wanted: dict[bytes | None, list[tuple[bytes | None, int]]] = {}
    fed = application.cluster.read(numbers)
    for partition in range(2):
        for key, value, at in truth([record for record in fed if record.partition == partition]):
            wanted.setdefault(key, []).append((value, at))
    # Timers were called besides.
    assert sum(map(len, wanted.values())) > 3 * RECORDS
    reader.until(sum(map(len, wanted.values())))
    third.stop()
    came: dict[bytes | None, list[tuple[bytes | None, int]]] = {}
    for record in reader.drain():
        came.setdefault(record.key, []).append((record.value, record.timestamp))
    assert came == wanted
