"""``map_async``: as if the records had never been held back."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from streamstate import (
    ConfigError,
    ProcessingError,
    Topology,
    dead_letter,
    serde,
)
from streamstate.app import Application, Settings
from streamstate.rocksdb import RocksDisk
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.memory_broker.application import Disk
from tests.unit.async_map.support import LONG, TEXT, calling, go, put, shout


def test_calls_are_awaited_before_the_commit() -> None:
    with TopologyTestDriver(calling(shout)) as driver:
        driver.input("in").pipe("k", "a", timestamp=7, headers=[("h", b"1")])
        record = driver.output("out").read()
        assert (record.key, record.value, record.timestamp, record.headers) == ("k", "A", 7, (("h", b"1"),))


def test_calls_run_at_the_same_time() -> None:
    barrier = asyncio.Barrier(20)

    async def meet(key: str, value: str) -> str:
        # Nobody gets on unless all twenty are there.
        await barrier.wait()
        return value

    with TopologyTestDriver(calling(meet, in_flight=20), auto_commit=False) as driver:
        put(driver, *(str(n) for n in range(40)))
        go(driver)
        driver.commit()
        assert driver.output("out").values() == [str(n) for n in range(40)]


def test_no_more_than_so_many_are_in_flight_also_of_one_record() -> None:
    running, most = 0, 0

    async def count(key: str, value: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return value

    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT).flat_map_values(str.split)
    words.map_async(count, in_flight=4).to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        put(driver, " ".join(str(n) for n in range(30)), *(str(n) for n in range(30, 60)))
        go(driver)
        assert driver.output("out").values() == [str(n) for n in range(60)]
    assert most == 4


class Gate:
    """Lets calls end in an order of the test's choice."""

    def __init__(self, order: list[str]) -> None:
        self._order = order
        self._next = 0
        self._turn = asyncio.Condition()

    async def __call__(self, key: str, value: str) -> str:
        async with self._turn:
            await self._turn.wait_for(lambda: self._order[self._next] == value)
            self._next += 1
            self._turn.notify_all()
        return value


@pytest.mark.parametrize("order", ["key", "input"])
def test_results_go_on_in_order(order: Any) -> None:
    gate = Gate(["b2", "a3", "b1", "a2", "a1"])
    with TopologyTestDriver(calling(gate, order=order), auto_commit=False) as driver:
        for value in ("a1", "b1", "a2", "b2", "a3"):
            driver.broker.append("in", key=value[:1].encode(), value=value.encode(), timestamp=1)
        go(driver)
        driver.commit()
        values = [str(value) for value in driver.output("out").values()]
    assert [value for value in values if value[0] == "a"] == ["a1", "a2", "a3"]
    assert [value for value in values if value[0] == "b"] == ["b1", "b2"]
    if order == "input":
        assert values == ["a1", "b1", "a2", "b2", "a3"]


def test_without_order_one_that_hangs_holds_up_nobody() -> None:
    first = asyncio.Event()

    async def release(key: str, value: str) -> str:
        if value == "0":
            await first.wait()
        if value == "9":
            first.set()
        return value

    with TopologyTestDriver(calling(release, order="none", in_flight=2), auto_commit=False) as driver:
        put(driver, *"0123456789")
        go(driver)
        driver.commit()
        values = driver.output("out").values()
    assert sorted(map(str, values)) == list("0123456789")
    assert values[-1] in ("0", "9")


def test_a_call_is_tried_again_and_then_fails_its_record() -> None:
    tries: list[str] = []

    async def flaky(key: str, value: str) -> str:
        tries.append(value)
        if value == "never" or (value == "third" and tries.count(value) < 3):
            raise ConnectionError(value)
        return value

    options = {"retries": 2, "backoff": timedelta(milliseconds=1), "source_on_error": dead_letter("bad")}
    with TopologyTestDriver(calling(flaky, **options)) as driver:
        put(driver, "first", "third", "never", "last")
        go(driver)
        assert driver.output("out").values() == ["first", "third", "last"]
        letter = driver.output("bad").read()
        assert (letter.value, dict(letter.headers)["streamstate.error.error"]) == (b"never", b"ConnectionError")
    assert (tries.count("third"), tries.count("never")) == (3, 3)


def test_a_call_without_an_answer_times_out() -> None:
    async def hang(key: str, value: str) -> str:
        await asyncio.Event().wait()
        return value

    with (
        TopologyTestDriver(calling(hang, timeout=timedelta(milliseconds=5))) as driver,
        pytest.raises(ProcessingError, match=r"'in.map_async' failed at .*offset 0.*no answer within 0.005 s"),
    ):
        driver.input("in").pipe("k", "a")


def test_a_function_that_is_no_coroutine_fails_its_record() -> None:
    with (
        TopologyTestDriver(calling(lambda key, value: value)) as driver,
        pytest.raises(ProcessingError, match=r"'in.map_async' failed at .*await"),
    ):
        driver.input("in").pipe("k", "a")


def test_a_key_that_cannot_be_ordered_by_is_told() -> None:
    topology = Topology("app")
    topology.stream("in", key=serde.json(), value=TEXT).map_async(shout).to("out", key=serde.json(), value=TEXT)
    with TopologyTestDriver(topology) as driver, pytest.raises(ProcessingError, match="order='input'"):
        driver.input("in").pipe({"a": 1}, "a")


@pytest.mark.parametrize("lost", [False, True])
def test_a_crash_with_calls_in_flight_loses_nothing_and_doubles_nothing(disk: Disk | RocksDisk, lost: bool) -> None:
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT)
    shouted = words.map_async(shout, in_flight=3).group_by_key(value=TEXT)
    shouted.reduce(lambda left, right: left + right, store="all").to_stream().to("out")
    with TopologyTestDriver(topology, partitions=2, auto_commit=False, disk=disk) as driver:
        put(driver, *"abcd")
        go(driver)
        driver.crash(disk="lost" if lost else "kept")
        put(driver, *"efgh")
        go(driver)
        driver.abort()
        driver.commit()
        assert driver.output("out").values() == ["ABCDEFGH"[:n] for n in range(1, 9)]
        assert driver.store("all").get("k") == "ABCDEFGH"


def test_a_coroutine_that_blocks_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamstate.operators.async_map.runtime.STUCK_MS", 1)
    gate = threading.Event()

    async def block(key: str, value: str) -> str:
        gate.wait()
        return value

    driver = TopologyTestDriver(calling(block, timeout=timedelta(milliseconds=1)))
    try:
        with pytest.raises(ProcessingError, match=r"'in.map_async'.* a coroutine blocks the event loop"):
            driver.input("in").pipe("k", "a")
    finally:
        gate.set()
        driver.close()


def test_calls_that_nobody_waits_for_are_cancelled() -> None:
    ended: list[str] = []

    async def hang(key: str, value: str) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(value)
            raise
        return value

    driver = TopologyTestDriver(calling(hang, timeout=LONG), auto_commit=False)
    put(driver, "a", "b")
    go(driver)
    driver.close()
    assert sorted(ended) == ["a", "b"]


def test_an_application_refuses_waits_beyond_its_transactions() -> None:
    topology = calling(shout, timeout=timedelta(seconds=3), retries=2, backoff=timedelta(milliseconds=500))
    with pytest.raises(ConfigError, match=r"'in.map_async' may wait for 10500 ms.*--transaction-timeout"):
        Application(topology, Settings(bootstrap_servers="nowhere:1"))
    Application(topology, Settings(bootstrap_servers="nowhere:1", transaction_timeout=timedelta(seconds=11)))
    Application(topology, Settings(bootstrap_servers="nowhere:1", processing_guarantee="at_least_once"))
