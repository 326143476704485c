"""The broker dies in the middle: no loss, no repetition, and what became of a commit is found out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from streamstate.broker import EmbeddedBroker
from tests.broker_support import acquire_broker, eventually
from tests.integration.conftest import PROPERTIES, warm_up
from tests.integration.support import Application, Cluster, check_counts

pytestmark = pytest.mark.broker

TASKS = 8
OUTAGE = timedelta(seconds=90)


@pytest.fixture(scope="module")
def own_broker() -> Iterator[EmbeddedBroker]:
    """A broker that no other module needs."""
    with acquire_broker(properties=PROPERTIES) as acquired:
        if not isinstance(acquired, EmbeddedBroker):
            pytest.skip("only the embedded broker can be killed from here")
        warm_up(Cluster(acquired.bootstrap_servers))
        yield acquired


def test_broker_killed_while_records_flow(own_broker: EmbeddedBroker, tmp_path: Path) -> None:
    cluster = Cluster(own_broker.bootstrap_servers)
    application = Application(cluster, "outage", tmp_path)
    try:
        lines, counts = application.create("lines", 4), application.create("counts", 3)
        feeder, reader = application.feeder(lines, seed=40), application.reader(counts)
        arguments = {"lines": lines, "counts": counts}
        workers = [application.start("word_count", arguments) for _ in range(2)]
        eventually(lambda: sum(len(w.running) for w in workers) == TASKS, OUTAGE, "two workers")
        feeder.start(200)
        reader.until(500, OUTAGE)
        own_broker.kill()
        own_broker.restart()
        reader.until(reader.poll() + 500, OUTAGE)
        feeder.stop()
        reader.until(feeder.words.total(), OUTAGE)
        for worker in workers:
            assert worker.process.poll() is None, worker.tail()
            worker.stop()
        check_counts(reader.drain(), feeder.truth())
    finally:
        application.close()


def test_worker_started_and_stopped_without_a_broker(own_broker: EmbeddedBroker, tmp_path: Path) -> None:
    """A process that comes up while the broker is down, and one that is told to end then, both end as they say."""
    cluster = Cluster(own_broker.bootstrap_servers)
    application = Application(cluster, "no-broker", tmp_path)
    try:
        lines, counts = application.create("lines", 4), application.create("counts", 3)
        feeder, reader = application.feeder(lines, seed=41), application.reader(counts)
        arguments = {"lines": lines, "counts": counts}
        worker = application.start("word_count", arguments, commit_interval=0.5)
        feeder.feed(400)
        reader.until(feeder.words.total())
        own_broker.kill()
        patient = application.start("word_count", arguments)
        late = application.start("word_count", arguments, broker_timeout=3)
        error = late.wait_error()
        assert error["type"] == "BrokerUnavailable", error
        assert own_broker.bootstrap_servers in error["message"]
        assert "--broker-timeout" in error["message"]
        own_broker.restart()
        feeder.feed(200)
        reader.until(feeder.words.total(), OUTAGE)
        eventually(lambda: sum(len(w.running) for w in (worker, patient)) == TASKS, OUTAGE, "the one that waited")
        for process in (worker, patient):
            process.stop()
        check_counts(reader.drain(), feeder.truth())
    finally:
        application.close()
