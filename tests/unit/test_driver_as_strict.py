"""The driver and its broker take what a real client and a real broker take, and no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamstate import Topology, serde
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.memory_broker.broker import MemoryBroker, RecordRefused
from streamstate.testing.memory_broker.clock import ManualClock

TEXT = serde.string()


def copying() -> Topology:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).to("out")
    return topology


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"timestamp": 1.5}, TypeError),
        ({"timestamp": True}, TypeError),
        ({"timestamp": "5"}, TypeError),
        ({"timestamp": 1 << 63}, OverflowError),
        ({"timestamp": -1}, RecordRefused),
        ({"partition": 1.0}, TypeError),
        ({"partition": 7}, RecordRefused),
        ({"headers": [("a", 1)]}, TypeError),
        ({"headers": {"ab": b"1"}}, TypeError),
        ({"headers": [(b"a", b"1")]}, TypeError),
        ({"headers": [("a", b"1", b"2")]}, TypeError),
        ({"headers": 5}, TypeError),
    ],
    ids=str,
)
def test_what_no_client_sends_is_not_piped(given: dict[str, Any], refusal: type[Exception]) -> None:
    """Nothing was put in, and the record behind it is processed."""
    with TopologyTestDriver(copying()) as driver:
        with pytest.raises(refusal):
            driver.input("in").pipe("k", "bad", **given)
        driver.input("in").pipe("k", "good", timestamp=5)
        assert driver.output("out", key=TEXT, value=TEXT).pairs() == [("k", "good")]


def test_what_a_client_sends_is_piped() -> None:
    with TopologyTestDriver(copying()) as driver:
        source = driver.input("in")
        source.pipe("k", "1", timestamp=datetime(1970, 1, 1, tzinfo=UTC), headers=[("a", b"1"), ("b", None)])
        source.pipe("k", "2", headers=[("a", "text")])
        first, second = driver.output("out").read_all()
    assert (first.timestamp, first.headers) == (0, (("a", b"1"), ("b", None)))
    assert second.headers == (("a", b"text"),)


def test_a_start_that_is_no_time() -> None:
    start: Any = 1.5
    with TopologyTestDriver(copying()) as driver, pytest.raises(TypeError, match=r"not float: 1\.5"):
        driver.input("in", start=start, step=timedelta(seconds=1))


def test_a_compacted_topic_takes_no_null_key() -> None:
    with TopologyTestDriver(copying(), topic_config={"cleanup.policy": "compact"}) as driver:
        with pytest.raises(RecordRefused, match="INVALID_RECORD"):
            driver.input("in").pipe(None, "v")
        driver.input("in").pipe("k", "v")
        assert driver.output("out").pairs() == [("k", "v")]


@pytest.mark.parametrize("data", ["text", 5, bytearray(b"1"), []], ids=repr)
def test_keys_and_values_are_bytes(data: Any) -> None:
    broker = MemoryBroker(ManualClock())
    broker.create_topic("in")
    with pytest.raises(TypeError, match="takes no value of type"):
        broker.append("in", value=data)
    with pytest.raises(TypeError, match="takes no key of type"):
        broker.append("in", key=data, value=b"v")
    assert broker.read("in") == []
