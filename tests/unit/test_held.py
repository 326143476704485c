"""Operators that hold records back: batches and awaited calls, as if the records had never been held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamstate import (
    ConfigError,
    ProcessingError,
    Processor,
    Topology,
    TopologyError,
    dead_letter,
    serde,
    stores,
    windows,
)
from streamstate.app import Application, Settings
from streamstate.rocksdb import RocksDisk
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.memory_broker.application import Disk

TEXT = serde.string()
NUMBER = serde.long()
LONG = timedelta(hours=1)
Batches = list[list[Any]]


@pytest.fixture(params=["memory", "rocksdb"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk | RocksDisk:
    return Disk() if request.param == "memory" else RocksDisk(tmp_path / "state")


def lengths(seen: Batches) -> Callable[[list[str]], list[int]]:
    def function(values: list[str]) -> list[int]:
        seen.append(values)
        return [len(value) for value in values]

    return function


def batching(seen: Batches, *, size: int = 3, delay: timedelta = LONG, **source: Any) -> Topology:
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT, **source)
    words.map_batches(lengths(seen), size=size, delay=delay).to("out", value=NUMBER)
    return topology


def put(driver: TopologyTestDriver, *values: str, key: bytes = b"k", topic: str = "in", start: int = 0) -> None:
    """All at once: the worker takes them in one poll."""
    for number, value in enumerate(values, start):
        driver.broker.append(topic, key=key, value=value.encode(), timestamp=number, headers=[("n", b"%d" % number)])


def go(driver: TopologyTestDriver) -> None:
    driver.advance(timedelta(0))


# -- batches -----------------------------------------------------------------------------------------------


def test_a_batch_goes_on_when_it_is_full_and_at_the_commit() -> None:
    seen: Batches = []
    with TopologyTestDriver(batching(seen), auto_commit=False) as driver:
        put(driver, "a", "bb", "ccc", "dddd")
        go(driver)
        assert seen == [["a", "bb", "ccc"]]
        assert driver.output("out", committed=False).values() == [1, 2, 3]
        driver.commit()
        assert seen == [["a", "bb", "ccc"], ["dddd"]]
        assert driver.output("out").values() == [1, 2, 3, 4]


def test_a_batch_goes_on_when_its_first_record_has_waited() -> None:
    seen: Batches = []
    topology = batching(seen, delay=timedelta(milliseconds=50))
    with TopologyTestDriver(topology, auto_commit=False) as driver:
        put(driver, "a")
        go(driver)
        driver.advance(timedelta(milliseconds=49))
        assert seen == []
        driver.advance(timedelta(milliseconds=1))
        assert seen == [["a"]]
        put(driver, "b")
        go(driver)
        assert seen == [["a"]]
        driver.advance(timedelta(milliseconds=50))
        assert seen == [["a"], ["b"]]


def test_time_headers_and_partition_are_the_records_own() -> None:
    shown: list[tuple[Any, ...]] = []

    class Show(Processor[str, int, str, int]):
        def process(self, key: str, value: int) -> None:
            c = self.context
            shown.append((value, c.timestamp, c.stream_time, c.offset, c.headers))
            c.forward(key, value)

    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT)
    words.map_batches(lengths([]), size=10, delay=LONG).process(Show).to("out", key=TEXT, value=NUMBER)
    with TopologyTestDriver(topology) as driver:
        put(driver, "aaaa", "b", start=5)
        put(driver, "cc", start=1)
        go(driver)
        assert shown == [(4, 5, 5, 0, [("n", b"5")]), (1, 6, 6, 1, [("n", b"6")]), (2, 1, 6, 2, [("n", b"1")])]
        out = driver.output("out").read_all()
        assert [(r.value, r.timestamp, r.headers) for r in out] == [
            (4, 5, (("n", b"5"),)),
            (1, 6, (("n", b"6"),)),
            (2, 1, (("n", b"1"),)),
        ]


def test_windows_behind_held_records_are_those_without_holding() -> None:
    async def same(key: str, value: str) -> str:
        return value

    def built(held: str) -> Topology:
        topology = Topology("app")
        words = topology.stream("in", key=TEXT, value=TEXT)
        if held == "batches":
            words = words.map_batches(list, size=50, delay=LONG)
        elif held == "calls":
            words = words.map_async(same, order="input")
        by_window = words.group_by_key(value=TEXT).windowed_by(windows.tumbling(timedelta(milliseconds=10)))
        by_window.count(store="counts").to_stream().map(
            lambda window, count: (window.key, f"{window.start} {count}")
        ).to("out", key=TEXT, value=TEXT)
        return topology

    found = []
    for held in ("not", "batches", "calls"):
        with TopologyTestDriver(built(held)) as driver:
            for time in (1, 12, 5, 13, 31, 14, 30):
                driver.broker.append("in", key=b"k", value=b"x", timestamp=time)
            go(driver)
            found.append((driver.output("out").values(), driver.status().dropped))
    assert found[0] == found[1] == found[2]
    assert found[0][1] == 2


def test_where_others_join_behind_it_stream_time_does_not_run_backwards() -> None:
    times: list[tuple[str, int]] = []

    class Show(Processor[str, str, str, str]):
        def process(self, key: str, value: str) -> None:
            times.append((value, self.context.stream_time))

    topology = Topology("app")
    slow, fast = topology.stream("in", key=TEXT, value=TEXT).split(lambda key, value: value == "slow")
    slow.map_batches(list, size=10, delay=LONG).merge(fast).process(Show)
    with TopologyTestDriver(topology) as driver:
        put(driver, "slow", "fast", "fast")
        go(driver)
    assert times == [("fast", 1), ("fast", 2), ("slow", 2)]


def test_schedules_see_what_was_held_before_them() -> None:
    seen: list[Any] = []

    class Timed(Processor[str, str, str, str]):
        def init(self, context: Any) -> None:
            super().init(context)
            context.schedule(timedelta(milliseconds=10), "stream_time", seen.append)

        def process(self, key: str, value: str) -> None:
            seen.append(value)

    topology = Topology("app")
    topology.stream("in", key=TEXT, value=TEXT).map_batches(list, size=50, delay=LONG).process(Timed)
    with TopologyTestDriver(topology) as driver:
        for time in (1, 5, 12, 13):
            driver.broker.append("in", key=b"k", value=b"%d" % time, timestamp=time)
        go(driver)
    assert seen == ["1", 1, "5", "12", 12, "13"]


def test_a_value_that_fails_is_found_and_only_it_is_left_out() -> None:
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT, on_error=dead_letter("bad"))
    numbers = words.map_batches(lambda values: [int(value) for value in values], size=10, delay=LONG)
    numbers.group_by_key(value=NUMBER).aggregate(
        initializer=lambda: 0, aggregator=lambda k, v, total: total + v, value=NUMBER, store="sum"
    ).to_stream().to("out")
    with TopologyTestDriver(topology) as driver:
        put(driver, "1", "two", "3")
        go(driver)
        assert driver.output("out").values() == [1, 4]
        letter = driver.output("bad").read()
        assert letter.value == b"two"
        assert ("streamstate.error.offset", b"1") in letter.headers
        assert ("streamstate.error.operator", b"in.map_batches") in letter.headers
        assert driver.status().failed == 1


def test_what_fails_behind_the_operator_takes_back_its_own_and_nothing_else() -> None:
    class Keep(Processor[str, str, str, str]):
        def process(self, key: str, value: str) -> None:
            store = self.context.store("kept")
            store.put(value, value)
            self.context.forward(key, value)
            if value == "bad":
                raise ValueError("after the fact")

    topology = Topology("app")
    held = topology.stream("in", key=TEXT, value=TEXT, on_error="continue").map_batches(list, size=10, delay=LONG)
    kept = held.process(Keep, stores=[stores.key_value("kept", key=TEXT, value=TEXT)])
    kept.to("out", key=TEXT, value=TEXT)
    with TopologyTestDriver(topology) as driver:
        put(driver, "a", "bad", "c")
        go(driver)
        assert driver.output("out").values() == ["a", "c"]
        assert [key for key, _ in driver.store("kept").all()] == ["a", "c"]


def test_a_record_that_fails_elsewhere_is_not_held_any_more() -> None:
    def refuse(key: str, value: str) -> None:
        if value == "bad":
            raise ValueError(value)

    seen: Batches = []
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    words.map_batches(lengths(seen), size=10, delay=LONG).to("out", value=NUMBER)
    words.for_each(refuse)
    with TopologyTestDriver(topology) as driver:
        put(driver, "a", "bad", "ccc")
        go(driver)
        assert seen == [["a", "ccc"]]
        assert driver.output("out").values() == [1, 3]


def test_an_operators_own_policy_wins() -> None:
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT)
    words.map_batches(lambda values: [int(v) for v in values], size=9, delay=LONG, on_error="continue").to(
        "out", value=NUMBER
    )
    with TopologyTestDriver(topology) as driver:
        put(driver, "1", "two", "3")
        go(driver)
        assert driver.output("out").values() == [1, 3]


def test_fail_names_the_record() -> None:
    topology = Topology("app")
    topology.stream("in", key=TEXT, value=TEXT).map_batches(lambda values: [int(v) for v in values], size=9).to(
        "out", value=NUMBER
    )
    with TopologyTestDriver(topology) as driver:
        put(driver, "1", "two", "3")
        with pytest.raises(ProcessingError, match=r"'in.map_batches' failed at topic 'in', partition 0, offset 1"):
            go(driver)


def test_a_function_must_return_one_result_per_value() -> None:
    topology = Topology("app")
    topology.stream("in", key=TEXT, value=TEXT).map_batches(lambda values: ["x"] * 5).to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver, pytest.raises(ProcessingError, match="5 results for 1 values"):
        driver.input("in").pipe("k", "a")


@pytest.mark.parametrize("lost", [False, True])
def test_offsets_never_pass_what_is_held(disk: Disk | RocksDisk, lost: bool) -> None:
    seen: Batches = []
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT)
    held = words.map_batches(lengths(seen), size=4, delay=LONG).group_by_key(value=NUMBER)
    held.aggregate(
        initializer=lambda: 0, aggregator=lambda key, value, total: total + value, value=NUMBER, store="sum"
    ).to_stream().to("out")
    with TopologyTestDriver(topology, auto_commit=False, disk=disk) as driver:
        put(driver, "a", "bb")
        go(driver)
        driver.commit()
        put(driver, "ccc", "dddd", "a", "a", "a")
        go(driver)
        driver.crash(disk="lost" if lost else "kept")
        driver.abort()
        driver.commit()
        assert driver.output("out").values() == [1, 3, 6, 10, 11, 12, 13]
        assert driver.store("sum").get("k") == 13
    assert [batch for batch in seen if batch[0] == "ccc"] == [["ccc", "dddd", "a", "a"]] * 3


def test_two_in_a_row_and_one_behind_a_commit() -> None:
    first: Batches = []
    second: Batches = []
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT)
    twice = words.map_batches(lengths(first), size=2, delay=LONG).map_batches(
        lambda values: second.append(values) or [n + 1 for n in values], size=3, delay=LONG
    )
    counts = twice.group_by_key(value=NUMBER).count(store="counts")
    third: Batches = []
    counts.to_stream(emit="commit").map_batches(lambda values: third.append(values) or values, size=9, delay=LONG).to(
        "out", value=NUMBER
    )
    with TopologyTestDriver(topology, auto_commit=False) as driver:
        put(driver, *("a" * n for n in range(1, 6)))
        go(driver)
        assert first == [["a", "aa"], ["aaa", "aaaa"]]
        assert second == [[1, 2, 3], [4]]
        driver.commit()
        assert second == [[1, 2, 3], [4], [5]]
        assert third == [[5]]
        assert driver.output("out").values() == [5]


# -- calls -------------------------------------------------------------------------------------------------


def calling(function: Callable[..., Any], **options: Any) -> Topology:
    topology = Topology("app")
    source = {name: options.pop(name) for name in list(options) if name.startswith("source_")}
    words = topology.stream("in", key=TEXT, value=TEXT, **{name[7:]: value for name, value in source.items()})
    words.map_async(function, **options).to("out", value=TEXT)
    return topology


async def shout(key: str, value: str) -> str:
    await asyncio.sleep(0)
    return value.upper()


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


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size= takes"),
        ({"delay": timedelta(-1)}, "delay= takes"),
    ],
)
def test_batches_that_are_none(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        Topology("t").stream("in").map_batches(list, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": "time"}, "order= takes 'key', 'input' or 'none'"),
        ({"in_flight": 0}, "in_flight= takes"),
        ({"timeout": timedelta(0)}, "timeout= takes"),
        ({"retries": -1}, "retries= takes"),
        ({"backoff": timedelta(-1)}, "backoff= takes"),
    ],
)
def test_calls_that_are_none(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        Topology("t").stream("in").map_async(shout, **options)
