"""Fixtures of these tests."""

from __future__ import annotations

import pytest

from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    made = MemoryBroker(clock)
    made.create_topic("topic")
    return made
