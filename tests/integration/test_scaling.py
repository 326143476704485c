"""Word count while the number of processes changes."""

from __future__ import annotations

import time

import pytest

from tests.broker_support import eventually
from tests.integration.support import DEADLINE, Application, WorkerProcess, check_counts

pytestmark = pytest.mark.broker

TASKS = 8


def shared(*workers: WorkerProcess) -> bool:
    """Each task runs in exactly one of the workers, and each worker has some."""
    held = [worker.running for worker in workers]
    return all(held) and sum(map(len, held)) == TASKS and len(set().union(*held)) == TASKS


@pytest.mark.parametrize(
    ("protocol", "static", "leaving"),
    [
        pytest.param("classic", False, "stop", id="classic"),
        pytest.param("consumer", False, "kill", id="consumer"),
        pytest.param("classic", True, "stop", id="static"),
    ],
)
def test_one_three_two_processes(application: Application, protocol: str, static: bool, leaving: str) -> None:
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=1), application.reader(counts)

    def start(name: str) -> WorkerProcess:
        return application.start(
            "word_count",
            {"lines": lines, "counts": counts},
            group_protocol=protocol,
            instance_id=name if static else None,
        )

    def grown() -> None:
        """Records flow: more of them than now come out."""
        reader.until(reader.poll() + 300)

    feeder.start(400)
    first = start("a")
    first.wait_tasks(TASKS)
    grown()
    second, third = start("b"), start("c")
    eventually(lambda: shared(first, second, third), DEADLINE, "three processes sharing the tasks")
    grown()
    if leaving == "stop":
        first.stop()
    else:
        first.kill()
    eventually(lambda: shared(second, third), DEADLINE, "two processes sharing the tasks")
    grown()
    feeder.stop()
    reader.until(feeder.words.total())
    for worker in (second, third):
        assert worker.stop()["failed"] == 0
    check_counts(reader.drain(), feeder.truth())


def test_a_static_member_that_comes_back_moves_nothing(application: Application) -> None:
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=2), application.reader(counts)
    kafka = {"consumer.session.timeout.ms": 30_000}

    def start(name: str) -> WorkerProcess:
        arguments = {"lines": lines, "counts": counts}
        return application.start("word_count", arguments, kafka=kafka, state=name, instance_id=name)

    stays, leaves = start("a"), start("b")
    eventually(lambda: shared(stays, leaves), DEADLINE, "both sharing the tasks")
    before, held = stays.running, leaves.running
    feeder.start(200)
    reader.until(200)
    leaves.kill()
    seen = len(stays.statuses)
    began = time.monotonic()
    back = start("b")
    back.wait_tasks(len(held))
    assert time.monotonic() - began < 20, "it waited for its own session to end"
    assert back.running == held
    feeder.stop()
    reader.until(feeder.words.total())
    assert all(set(status["tasks"]) == before for status in stays.statuses[seen:])
    back.stop()
    stays.stop()
    check_counts(reader.drain(), feeder.truth())
