"""A process that is stopped past its session and wakes up: it is fenced, discards, rejoins and works on."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.broker_support import eventually
from tests.integration.support import DEADLINE, Application, Record, check_counts, freeze_mid_transaction

pytestmark = [pytest.mark.broker, pytest.mark.sessions]

TASKS = 8
# Neither ends an open transaction within the test: only the group's generation can keep the zombie out.
LONG: dict[str, Any] = {"transaction_timeout": 120}


def touched(application: Application, counts: str) -> list[str]:
    return [counts, application.internal("word-counts-repartition"), application.internal("word-counts-changelog")]


def shares(application: Application) -> bool:
    """Two live workers hold all tasks between them."""
    held = [worker.running for worker in application.workers if worker.process.poll() is None]
    return all(held) and sum(map(len, held)) == TASKS and len(set().union(*held)) == TASKS


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_stopped_past_its_session(application: Application, protocol: str) -> None:
    """Stopped with a transaction open, continued after another process has taken everything over."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=20), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    zombie = application.start("word_count", arguments, commit_interval=1, group_protocol=protocol, **LONG)
    feeder.start(400)
    zombie.wait(lambda s: s["commits"] >= 2 and s["processed"] > s["committed"], "uncommitted work")
    freeze_mid_transaction(zombie, application.cluster, touched(application, counts))
    rollbacks = zombie.status["rollbacks"]
    assert rollbacks == 0

    # On the same directory it waits a while for the state that the zombie has locked, on another one it does not.
    where = "state" if protocol == "consumer" else "elsewhere"
    successor = application.start("word_count", arguments, state=where, group_protocol=protocol, **LONG)
    # It has the zombie's partitions, and works on those inputs that no open transaction holds up.
    successor.wait(lambda s: len(s["tasks"]) == TASKS and s["committed"] > 50, "the partitions to be taken over")
    assert application.cluster.open_transactions(touched(application, counts))

    os.kill(zombie.pid, signal.SIGCONT)
    zombie.wait(lambda s: s["rollbacks"] >= 1, "the zombie to discard")
    eventually(lambda: shares(application), DEADLINE, "the zombie to rejoin")
    came_back_with = zombie.status["committed"]
    zombie.wait(lambda s: s["committed"] > came_back_with, "the zombie to work again")
    feeder.stop()
    reader.until(feeder.words.total())
    # Its commit was refused, or the group told it that its partitions were lost, or both, one after the other.
    assert zombie.stop()["rollbacks"] <= 2
    successor.stop()
    check_counts(reader.drain(), feeder.truth())


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_zombie_that_commits_before_it_polls(application: Application, protocol: str) -> None:
    """Stopped in the middle of a record, so that after waking up it goes straight to its commit: nothing but the
    generation that it sends with its offsets tells the broker."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=21), application.reader(counts)
    gate = application.directory / "gate"
    reached = application.directory / "gate.reached"
    arguments = {"lines": lines, "counts": counts}
    zombie = application.start("word_count", {**arguments, "gate": str(gate)}, group_protocol=protocol, **LONG)
    feeder.feed(400)
    reader.until(feeder.words.total())
    # In one partition: work, the line that holds it, and work behind it. What was before is committed first: in a
    # transaction that is open when the process is stopped it would hold every reader up until the time-out.
    for line in ("before the gate", "gate", "behind the gate"):
        application.cluster.send(lines, [(None, line.encode())], partition=0)
        feeder.words.update(line.split())
        if line.startswith("before"):
            reader.until(feeder.words.total())
    eventually(reached.exists, DEADLINE, "the record that holds the worker")
    os.kill(zombie.pid, signal.SIGSTOP)

    # The same topology without the gate.
    successor = application.start("word_count", arguments, state="elsewhere", group_protocol=protocol, **LONG)
    successor.wait_tasks(TASKS)
    reader.until(feeder.words.total())
    feeder.feed(100)
    reader.until(feeder.words.total())
    assert zombie.status["rollbacks"] == 0
    uncommitted = application.reader(application.internal("word-counts-repartition"), isolation="read_uncommitted")
    before = len(uncommitted.drain())

    gate.touch()
    os.kill(zombie.pid, signal.SIGCONT)
    zombie.wait(lambda s: s["rollbacks"] >= 1, "the zombie to be refused")
    eventually(lambda: shares(application), DEADLINE, "the zombie to rejoin")
    # What it may have written before it was refused is aborted: committed readers see none of it.
    late = len(uncommitted.drain()) - before
    print(f"the zombie wrote {late} records after it woke up, all of them aborted")
    feeder.feed(100)
    reader.until(feeder.words.total())
    zombie.stop()
    successor.stop()
    check_counts(reader.drain(), feeder.truth())
    words: list[Record] = application.cluster.read(application.internal("word-counts-repartition"))
    assert len(words) == feeder.words.total()
