"""What the client's errors mean to the engine, where a fault test has found one that meant something else."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamstate.engine.ports import Fenced, Retriable, Unavailable
from streamstate.kafka.errors import general, transactional


@pytest.mark.parametrize("mapped", [general, transactional])
def test_a_group_that_the_coordinator_does_not_know_has_moved_on(mapped: object) -> None:
    """Found by chaos: under at_least_once, commits to a coordinator that had just been restarted ended processes."""
    assert callable(mapped)
    error = mapped(KafkaException(KafkaError(KafkaError.GROUP_ID_NOT_FOUND)))
    assert isinstance(error, Fenced)
    assert "GROUP_ID_NOT_FOUND" in str(error)


@pytest.mark.parametrize("mapped", [general, transactional])
def test_a_coordinator_that_is_looked_for_is_waited_for(mapped: object) -> None:
    assert callable(mapped)
    assert isinstance(mapped(KafkaError(KafkaError._WAIT_COORD)), Retriable)
    assert isinstance(general(KafkaError(KafkaError._WAIT_COORD)), Unavailable)
