"""``map_batches``: as if the records had never been held back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import (
    ProcessingError,
    Processor,
    Topology,
    dead_letter,
    stores,
    windows,
)
from streamstate.rocksdb import RocksDisk
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.memory_broker.application import Disk
from tests.unit.async_map.support import LONG, NUMBER, TEXT, Batches, batching, go, lengths, put

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
