"""Windows and joins on a real broker, through a kill, a lost disk and an orderly restart: all results, in order."""

from __future__ import annotations

import random
import shutil

import pytest
from confluent_kafka import Producer

from streamstate.testing.driver.driver import TopologyTestDriver
from tests.integration.support import Application, Record
from tests.integration.topologies import windows_of_all_kinds

pytestmark = pytest.mark.broker

BASE_MS = 1_357_000_000_000


def truth(left: list[Record], right: list[Record]) -> list[tuple[bytes | None, bytes | None, int]]:
    """What the topology makes of one partition, by the driver; records in the order of their times, as a task takes
    them, left ones first where they are equal."""
    with TopologyTestDriver(windows_of_all_kinds("left", "right", "out"), auto_commit=False) as driver:
        records = sorted(
            [(r.timestamp, topic, r.offset, r) for topic, side in (("left", left), ("right", right)) for r in side],
            key=lambda item: item[:3],
        )
        for time, topic, _, record in records:
            assert record.key is not None
            assert record.value is not None
            driver.input(topic).pipe(record.key.decode(), record.value.decode(), timestamp=time)
        driver.commit()
        return [(r.key(), r.value(), r.timestamp()[1]) for r in driver.broker.read("out")]


def test_windows_and_joins_survive_a_kill_and_a_lost_disk(application: Application) -> None:
    # Of 2013: a topic that is deleted by time would lose them.
    left, right, out = (application.create(name, 2, {"retention.ms": "-1"}) for name in ("left", "right", "out"))
    chance = random.Random(5)
    # No two records have the same time: then the order in which a task takes them is known.
    producer = Producer({"bootstrap.servers": application.cluster.bootstrap_servers, "enable.idempotence": True})
    for number, time in enumerate(sorted(chance.sample(range(120_000), 3_000))):
        topic, partition = (left, right)[chance.random() < 0.4], chance.randrange(2)
        key = f"{partition}{chance.choice('abcd')}".encode()
        producer.produce(topic, b"%d" % number, key, partition=partition, timestamp=BASE_MS + time)
    assert producer.flush(30) == 0
    arguments = {"left": left, "right": right, "out": out}
    reader = application.reader(out)
    first = application.start("windows_of_all_kinds", arguments, max_task_idle=1)
    reader.until(400)
    first.kill()
    second = application.start("windows_of_all_kinds", arguments, max_task_idle=1)
    reader.until(reader.poll() + 300)
    second.kill()
    shutil.rmtree(application.directory / "state")
    third = application.start("windows_of_all_kinds", arguments, max_task_idle=1)
    lefts, rights = application.cluster.read(left), application.cluster.read(right)
    wanted: dict[bytes | None, list[tuple[bytes | None, int]]] = {}
    for partition in range(2):
        sides = [[r for r in side if r.partition == partition] for side in (lefts, rights)]
        for key, value, time in truth(*sides):
            wanted.setdefault(key, []).append((value, time))
    reader.until(sum(map(len, wanted.values())))
    third.stop()
    came: dict[bytes | None, list[tuple[bytes | None, int]]] = {}
    for record in reader.drain():
        came.setdefault(record.key, []).append((record.value, record.timestamp))
    assert came == wanted
