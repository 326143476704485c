"""How long a task with several inputs waits for an empty one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import pytest

from streamstate.engine.ports import Consumer, TopicPartition
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.backpressure import InputBackpressure
from streamstate.engine.task.inputs import Input
from streamstate.testing.memory_broker.clock import ManualClock

HERE = TopicPartition("left", 0)


class Lagging:
    """A consumer of which only the lag is asked; None: it does not know it yet."""

    def __init__(self, lag: int | None) -> None:
        self._lag = lag

    def lag(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {} if self._lag is None else dict.fromkeys(positions, self._lag)


def waits(lag: int | None, **settings: Any) -> int:
    """Milliseconds until the others go on without the input."""
    clock, input_ = ManualClock(), Input(HERE, next_offset=0)
    buffers = InputBackpressure(cast(Consumer, Lagging(lag)), clock, WorkerSettings("app", **settings))
    waited = 0
    while not buffers.may_skip_empty(input_):
        clock.advance(100)
        waited += 100
    assert all(buffers.may_skip_empty(input_) for _ in range(3))
    return waited


def test_a_caught_up_input_is_waited_for_as_long_as_told() -> None:
    assert waits(0) == 0
    assert waits(0, max_task_idle_ms=700) == 700


def test_an_input_of_unknown_lag_is_waited_for_a_second() -> None:
    assert waits(None) == 1_000
    assert waits(None, max_task_idle_ms=2_000) == 2_000


def test_records_that_are_known_to_be_there_are_waited_for_and_going_on_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "streamstate.worker"):
        assert waits(5) == 60_000
    assert [record.getMessage() for record in caplog.records] == [
        "left[0] has 5 more records, of which none came for 60 s: going on without them, out of order"
    ]
