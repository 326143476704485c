"""The admin port on a client that keeps what it once knew."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamstate.engine.ports import TopicPartition
from streamstate.kafka import KafkaAdmin
from streamstate.kafka import admin as module

PARTITION = TopicPartition("t", 0)


class Client:
    """Says that no partition exists; the second one made, and those after it, know better."""

    made = 0

    def __init__(self, properties: Any, logger: Any) -> None:
        Client.made += 1
        self._number = Client.made

    def list_offsets(self, request: dict[Any, Any], **limits: Any) -> dict[Any, Future[Any]]:
        future: Future[Any] = Future()
        if self._number == 1:
            future.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
        else:
            future.set_result(SimpleNamespace(offset=7))
        return dict.fromkeys(request, future)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, to be moved."""
    moment = [100.0]
    monkeypatch.setattr(Client, "made", 0)
    monkeypatch.setattr(module, "AdminClient", Client)
    monkeypatch.setattr(module, "monotonic", lambda: moment[0])
    return moment


def test_a_client_that_misses_a_partition_is_replaced(now: list[float]) -> None:
    """Found by chaos: after a broker's restarts one process heard for minutes that a topic did not exist, while the
    others worked on it."""
    admin = KafkaAdmin({})
    assert admin.log_ends([PARTITION]) == {}
    now[0] += module.RENEWAL_S
    assert admin.log_ends([PARTITION]) == {}
    assert admin.log_ends([PARTITION]) == {PARTITION: 7}
    assert Client.made == 2


def test_but_not_at_each_call(now: list[float]) -> None:
    admin = KafkaAdmin({})
    for _ in range(10):
        assert admin.log_starts([PARTITION]) == {}
        now[0] += module.RENEWAL_S / 20
    assert Client.made == 1


def test_a_client_that_knows_all_is_kept(now: list[float]) -> None:
    admin = KafkaAdmin({})
    now[0] += module.RENEWAL_S
    admin.log_ends([PARTITION])
    now[0] += 10 * module.RENEWAL_S
    assert admin.log_ends([PARTITION]) == {PARTITION: 7}
    assert Client.made == 2
