"""Partitions that are added and members that do not belong, on a real broker: read, or said within seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import NewPartitions

from tests.integration.support import Application, WorkerProcess

pytestmark = pytest.mark.broker

SOON = {"topic.metadata.refresh.interval.ms": 1_000}


def grow(application: Application, topic: str, partitions: int) -> None:
    application.cluster.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)


def until_said(worker: WorkerProcess, *texts: str) -> str:
    """A line of the log, of WARNING, that has all of these."""

    def line() -> str | None:
        lines = worker.log.read_text(errors="replace").splitlines()
        return next((found for found in lines if " WARNING " in found and all(text in found for text in texts)), None)

    worker.wait(lambda status: line(), f"a line with {texts}")
    found = line()
    assert found is not None
    return found


@contextmanager
def plain_consumer(application: Application, topic: str, strategy: str) -> Iterator[Callable[[], int]]:
    """Polls in a thread; gives the number of its partitions."""
    consumer = Consumer(
        {
            "bootstrap.servers": application.cluster.bootstrap_servers,
            "group.id": application.id,
            "client.id": "console",
            "auto.offset.reset": "latest",
            "enable.auto.commit": False,
            "partition.assignment.strategy": strategy,
            "heartbeat.interval.ms": 500,
        }
    )
    done, held = Event(), [0]

    def poll() -> None:
        consumer.subscribe([topic])
        while not done.is_set():
            consumer.poll(0.1)
            held[0] = len(consumer.assignment())
        consumer.close()

    thread = Thread(target=poll)
    thread.start()
    try:
        yield lambda: held[0]
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("down", [False, True])
def test_latest_reads_added_partitions_from_their_beginning(application: Application, down: bool) -> None:
    lines, out = application.create("lines", 1), application.create("out", 1)
    arguments = {"lines": lines, "out": out, "reset": "latest"}
    application.cluster.send(lines, [(None, b"before")])
    reader = application.reader(out)
    worker = application.start("upper", arguments, kafka=SOON)
    worker.wait(lambda status: status["commits"] >= 1, "the first commit")
    application.cluster.send(lines, [(None, b"old")])
    reader.until(1)
    if down:
        worker.stop()
    grow(application, lines, 3)
    application.cluster.send(lines, [(b"k%d" % number, b"new") for number in range(20)])
    if down:
        worker = application.start("upper", arguments, kafka=SOON)
    reader.until(21)
    worker.stop()
    assert sorted(record.value or b"" for record in reader.drain()) == [b"NEW"] * 20 + [b"OLD"]


def test_a_global_table_reads_added_partitions(application: Application) -> None:
    lines, names, out = application.create("lines", 1), application.create("names", 1), application.create("out", 1)
    reader = application.reader(out)
    worker = application.start("looked_up", {"lines": lines, "names": names, "out": out})
    worker.wait_tasks(1)
    grow(application, names, 4)
    keys = [b"k%d" % number for number in range(20)]
    application.cluster.send(names, [(key, b"row") for key in keys])
    until_said(worker, f"topic '{names}' has got partitions 1, 2, 3")

    def all_found() -> bool:
        before = len(reader.drain())
        application.cluster.send(lines, [(None, key) for key in keys])
        found = reader.until(before + len(keys))[before:]
        return [record.value for record in found] == [key + b"=row" for key in keys]

    worker.wait(lambda status: all_found(), "the rows")
    worker.stop()


def test_members_of_another_strategy_are_said_and_waited_for(application: Application) -> None:
    lines, out = application.create("lines", 2), application.create("out", 1)
    reader = application.reader(out)
    with plain_consumer(application, lines, "range") as held:
        while held() < 2:
            Event().wait(0.05)
        worker = application.start("upper", {"lines": lines, "out": out})
        until_said(worker, f"consumer group '{application.id}' has members of another kind")
        until_said(worker, "no processes of this application: client 'console' at ", f"holds {lines}-0, {lines}-1")
        application.cluster.send(lines, [(None, b"a")])
    reader.until(1)
    worker.stop()


def test_a_plain_consumer_that_takes_partitions_is_said(application: Application) -> None:
    lines, out = application.create("lines", 2), application.create("out", 1)
    reader = application.reader(out)
    worker = application.start("upper", {"lines": lines, "out": out})
    worker.wait_tasks(2)
    with plain_consumer(application, lines, "cooperative-sticky"):
        until_said(worker, "no processes of this application: client 'console' at ", f"holds {lines}-")
    worker.wait_tasks(2)
    application.cluster.send(lines, [(b"k%d" % number, b"a") for number in range(10)])
    reader.until(10)
    worker.stop()


def test_two_processes_of_one_topology_are_no_strangers(application: Application) -> None:
    lines, out = application.create("lines", 2), application.create("out", 1)
    workers = [application.start("upper", {"lines": lines, "out": out}, state=f"state-{number}") for number in range(2)]
    for worker in workers:
        worker.wait_tasks(1)
    with plain_consumer(application, lines, "cooperative-sticky"):
        # By then it has looked who is there.
        line = until_said(workers[0], "no processes of this application")
    assert line.count("client ") == 1
    for worker in workers:
        worker.stop()
        assert "another topology" not in worker.log.read_text()
