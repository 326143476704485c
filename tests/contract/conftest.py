"""Both sides of the contract: every test here runs on the in-memory broker and on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

from tests.contract.harness import Side
from tests.contract.memory_side import MemorySide

try:
    kafka_side = import_module("tests.contract.kafka_side")
except ImportError:
    # The real adapters are not there: the in-memory broker is still held to the contract.
    kafka_side = None

SIDES = [pytest.param("memory", id="memory")]
if kafka_side is not None:
    SIDES.append(pytest.param("kafka", id="kafka", marks=pytest.mark.broker))


# What a broker does every few seconds, faster.
BROKER_PROPERTIES = {
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "6000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
}


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """A real broker, started when the first test needs it; shared by all processes of the run."""
    support = import_module("tests.broker_support")
    with support.shared_broker("contract", properties=BROKER_PROPERTIES) as broker:
        yield broker.bootstrap_servers


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """One side; its clients are closed afterwards."""
    if request.param == "memory":
        made: Side = MemorySide()
    else:
        assert kafka_side is not None
        made = kafka_side.KafkaSide(request.getfixturevalue("bootstrap_servers"))
    yield made
    made.close()
