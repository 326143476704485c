"""One broker for all integration tests, and for each test an application of its own."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from tests.broker_support import Broker, shared_broker
from tests.integration.support import SESSION_MS, Application, Cluster, Reader

# Sessions of the protocol in which the broker assigns are set at the broker.
PROPERTIES = {
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.heartbeat.interval.ms": "500",
    # Records of tests have old timestamps: the first look at what retention deletes would take them away.
    "log.retention.check.interval.ms": "86400000",
}


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A broker that has seen a topic, a transaction and a group before; shared by all processes of the run."""
    with shared_broker("integration", properties=PROPERTIES) as acquired:
        warm_up(Cluster(acquired.bootstrap_servers))
        yield acquired


@pytest.fixture(scope="session")
def cluster(broker: Broker) -> Cluster:
    return Cluster(broker.bootstrap_servers)


@pytest.fixture
def application(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Application]:
    """An application that no other test has; its processes are ended with the test."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")
    found = Application(cluster, name, tmp_path)
    try:
        yield found
    finally:
        found.close()


def warm_up(cluster: Cluster) -> None:
    """The first transaction and the first committed offset make internal topics, which takes a second."""
    # Each process of a run does it.
    name = f"warm-up-{uuid.uuid4().hex[:8]}"
    cluster.create(name, 1)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": name})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(name, b"hello")
    producer.commit_transaction(60)
    reader = Reader(cluster, name)
    try:
        reader.until(1)
        reader._consumer.commit(offsets=[TopicPartition(name, 0, 1)], asynchronous=False)
    finally:
        reader.close()
