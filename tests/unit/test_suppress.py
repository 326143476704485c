"""Holding changes back: when they go, in which order, within which limits, and across restarts; and cogroups."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import ProcessingError, Topology, TopologyError, Windowed, serde, time_limit, window_close, windows
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
NUMBER = serde.long()

Sent = list[tuple[Any, Any, int]]


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


class Reader:
    """What came to ``out`` since the last time."""

    def __init__(self, driver: TopologyTestDriver) -> None:
        self.driver = driver
        self._out = driver.output("out")

    def pipe(self, key: str, value: str | None, time: int) -> Sent:
        self.driver.input("in").pipe(key, value, timestamp=time)
        return self.read()

    def read(self) -> Sent:
        return [(record.key, record.value, record.timestamp) for record in self._out.read_all()]


def held_back(until: Any, **limits: Any) -> Topology:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT)
    table.suppress(until, store="held", **limits).to_stream().to("out")
    return topology


def test_each_key_keeps_its_place_and_sends_its_newest() -> None:
    with TopologyTestDriver(held_back(time_limit(ms(10)))) as driver:
        reader = Reader(driver)
        assert reader.pipe("b", "1", 0) == []
        assert reader.pipe("a", "1", 0) == []
        assert reader.pipe("c", "1", 5) == []
        assert reader.pipe("b", "2", 9) == []
        assert reader.pipe("d", "1", 10) == [("a", "1", 0), ("b", "2", 9)]
        assert reader.pipe("d", None, 15) == [("c", "1", 5)]
        assert reader.pipe("e", "1", 20) == [("d", None, 15)]


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_what_is_held_survives_a_crash(disk: Any) -> None:
    with TopologyTestDriver(held_back(time_limit(ms(10)))) as driver:
        reader = Reader(driver)
        driver.input("in").pipe("a", "1", timestamp=3, headers=[("h", b"\x00\xff"), ("n", None)])
        assert reader.pipe("b", "1", 5) == []
        driver.crash(disk=disk)
        assert reader.pipe("b", "2", 4) == []
        assert reader.pipe("c", "1", 20) == [("a", "1", 3), ("b", "2", 4)]
        [first, *_] = driver.output("out").read_all()
        assert list(first.headers) == [("h", b"\x00\xff"), ("n", None)]
        assert [key for key, _ in driver.store("held").all()] == [(20, "c")]


def test_what_came_and_went_between_two_commits_is_not_in_the_changelog() -> None:
    with TopologyTestDriver(held_back(time_limit(ms(0)))) as driver:
        reader = Reader(driver)
        for number in range(5):
            assert len(reader.pipe("a", str(number), number)) == 1
        records = driver.broker.read("t-held-changelog")
        assert len({record.key() for record in records}) == 1, "nothing but the time"


def test_over_its_budget_it_sends_the_first_ones_early() -> None:
    with TopologyTestDriver(held_back(time_limit(ms(1_000)), max_records=2)) as driver:
        reader = Reader(driver)
        assert reader.pipe("b", "1", 1) + reader.pipe("a", "1", 2) + reader.pipe("b", "2", 3) == []
        assert reader.pipe("c", "1", 0) == [("c", "1", 0)], "the first in time is itself"
        assert reader.pipe("d", "1", 4) == [("b", "2", 3)]


def test_the_budget_of_bytes_counts_what_is_held_now() -> None:
    with TopologyTestDriver(held_back(time_limit(ms(1_000)), max_bytes=400)) as driver:
        reader = Reader(driver)
        assert reader.pipe("a", "x" * 250, 1) == []
        assert reader.pipe("a", "", 2) == [], "smaller again"
        assert reader.pipe("b", "y" * 100, 3) == []
        assert reader.pipe("c", "z" * 250, 4) == [("a", "", 2), ("b", "y" * 100, 3)]
        driver.crash()
        assert reader.pipe("d", "z" * 250, 5) == [("c", "z" * 250, 4)]


def test_a_full_buffer_that_may_not_send_early_stops_the_worker_whatever_the_policy() -> None:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT, on_error="continue")
    table.suppress(time_limit(ms(10)), max_records=1, when_full="stop", store="held").to_stream().to("out")
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("a", "1", timestamp=1)
        with pytest.raises(ProcessingError, match=r"holds 2 records \(max_records=1\)"):
            driver.input("in").pipe("b", "1", timestamp=1)


def test_a_failed_record_takes_back_what_it_had_let_go() -> None:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=TEXT, on_error="continue")
    held = table.suppress(time_limit(ms(10)), max_records=3, store="held")
    held.to_stream().to("out")
    # Reached after the suppression.
    table.to_stream().peek(lambda key, value: 1 // (value != "bad")).to("other")
    with TopologyTestDriver(topology) as driver:
        reader = Reader(driver)
        assert reader.pipe("a", "1", 1) + reader.pipe("b", "1", 2) == []
        # Lets both go and then fails itself.
        assert reader.pipe("c", "bad", 30) == []
        assert reader.pipe("c", "1", 30) == [("a", "1", 1), ("b", "1", 2)]


@pytest.mark.parametrize("made", [windows.tumbling(ms(10), grace=ms(5)), windows.sliding(ms(10), grace=ms(5)),
                                  windows.session(ms(10), grace=ms(5))])  # fmt: skip
def test_final_results_come_once_and_are_those_of_emit_close(made: Any) -> None:
    topology = Topology("t")
    windowed = topology.stream("in", key=TEXT, value=TEXT).group_by_key().windowed_by(made)
    windowed.count(store="n").suppress(window_close(), store="held").to_stream().to("out")
    windowed.count(store="m", emit="close").to_stream().to("other")
    with TopologyTestDriver(topology) as driver:
        for time in (1, 3, 12, 20, 9, 10, 31, 27, 26, 45, 46, 40, 100, 99, 101, 300, 700):
            driver.input("in").pipe("a" if time % 2 else "b", "x", timestamp=time)
        held, other = (
            {record.key: (record.value, record.timestamp) for record in driver.output(name).read_all()}
            for name in ("out", "other")
        )
        assert len(driver.output("out").read_all()) == len(held), "each window once"
        # At 700 all windows of earlier records are closed for the one; the other needs their changes to pass.
        assert held == other


def test_rows_that_are_held_back_are_looked_up_as_they_were() -> None:
    topology = Topology("t")
    rows = topology.table("rows", key=TEXT, value=TEXT).suppress(time_limit(ms(10)), store="held")
    topology.stream("in", key=TEXT, value=TEXT).left_join(rows, lambda value, row: f"{value} {row}").to(
        "out", value=TEXT
    )
    with TopologyTestDriver(topology) as driver:
        reader = Reader(driver)
        driver.input("rows").pipe("a", "1", timestamp=0)
        assert reader.pipe("a", "?", 0) == [("a", "? None", 0)]
        driver.input("rows").pipe("b", "1", timestamp=10)
        assert reader.pipe("a", "?", 10) == [("a", "? 1", 10)]
        driver.input("rows").pipe("a", "2", timestamp=12)
        assert reader.pipe("a", "?", 12) == [("a", "? 1", 12)]


def test_what_does_not_fit_is_refused() -> None:
    table = Topology("t").table("in", key=TEXT, value=TEXT)
    for until, more, said in (
        (window_close(), {}, "no windows that close"),
        (time_limit(ms(1)), {"max_records": 0}, "max_records=1 or more"),
        (time_limit(ms(1)), {"when_full": "drop"}, "'emit' or 'stop'"),
        ("soon", {}, "takes time_limit"),
    ):
        with pytest.raises(TopologyError, match=said):
            table.suppress(until, store="held", **more)  # type: ignore[arg-type]
    words = Topology("t").stream("in", key=TEXT).group_by_key()
    counts = words.windowed_by(windows.tumbling(ms(1))).count(store="n")
    with pytest.raises(TopologyError, match="is final"):
        counts.suppress(window_close(), when_full="emit")
    with pytest.raises(TopologyError, match="no windows that close"):
        words.windowed_by(windows.unlimited()).count(store="u").suppress(window_close())


# -- cogroups ----------------------------------------------------------------------------------------------


def bids_and_asks(topology: Topology) -> Any:
    bids, asks = (topology.stream(name, key=TEXT, value=NUMBER).group_by_key() for name in ("bids", "asks"))
    return bids.cogroup(lambda key, bid, net: net + bid).cogroup(asks, lambda key, ask, net: net - ask)


@pytest.mark.parametrize("made", [windows.tumbling(ms(10), grace=ms(50)), windows.sliding(ms(9), grace=ms(50)),
                                  windows.session(ms(5), grace=ms(50)), None])  # fmt: skip
def test_a_cogroup_folds_each_stream_its_own_way(made: Any) -> None:
    topology = Topology("t")
    cogrouped = bids_and_asks(topology)
    if made is None:
        table = cogrouped.aggregate(initializer=int, value=NUMBER, store="net")
    elif isinstance(made, windows.SessionWindows):
        table = cogrouped.windowed_by(made).aggregate(
            initializer=int, merger=lambda key, a, b: a + b, value=NUMBER, store="net"
        )
    else:
        table = cogrouped.windowed_by(made).aggregate(initializer=int, value=NUMBER, store="net")
    table.to_stream().to("out")
    with TopologyTestDriver(topology) as driver:
        driver.input("bids").pipe("a", 10, timestamp=20)
        driver.input("asks").pipe("a", 3, timestamp=24)
        driver.crash(disk="lost")
        driver.input("bids").pipe("a", 1, timestamp=22)
        driver.input("asks").pipe("a", None, timestamp=22)
        values = [record.value for record in driver.output("out").read_all()]
        assert 8 in values
        assert values[0] == 10


def test_a_cogroup_repartitions_what_has_a_new_key_and_takes_one_stream_twice() -> None:
    topology = Topology("t")
    words = topology.stream("words", key=TEXT, value=TEXT)
    by_word = words.group_by(lambda key, word: word, key=TEXT)
    by_key = words.group_by_key()
    both = by_word.cogroup(lambda key, value, seen: seen + "w").cogroup(by_key, lambda key, value, seen: seen + "k")
    table = both.cogroup(by_key, lambda key, value, seen: seen + "K").aggregate(initializer=str, value=TEXT, store="s")
    table.to_stream().to("out")
    parts = topology.build().subtopologies
    assert [part.name for part in parts] == ["words"], "what comes from one topic is in one task with the rest"
    with TopologyTestDriver(topology, partitions=3) as driver:
        driver.input("words").pipe("x", "y", timestamp=1)
        driver.input("words").pipe("y", "x", timestamp=2)
        assert {driver.store("s").get("x"), driver.store("s").get("y")} == {"kKw", "wkK"}


def test_cogroup_refuses_what_is_not_grouped() -> None:
    topology = Topology("t")
    words = topology.stream("words", key=TEXT, value=TEXT)
    both = words.group_by_key().cogroup(lambda key, value, seen: seen)
    other = Topology("other").stream("words", key=TEXT, value=TEXT).group_by_key()
    with pytest.raises(TopologyError, match="takes a grouped stream"):
        both.cogroup(words, lambda key, value, seen: seen)
    with pytest.raises(TopologyError, match="another Topology"):
        both.cogroup(other, lambda key, value, seen: seen)
    with pytest.raises(TopologyError, match="serde of the aggregate"):
        both.aggregate(initializer=list, value=None)  # type: ignore[arg-type]


def test_windowed_keys_are_those_of_kafka_streams() -> None:
    key = Windowed("a", 1, 2**40)
    assert windows.session_windowed(TEXT).serialize(key) == b"a" + (2**40).to_bytes(8, "big") + (1).to_bytes(8, "big")
    assert windows.time_windowed(TEXT).serialize(key) == b"a" + (1).to_bytes(8, "big")
    assert windows.time_windowed(TEXT).deserialize(b"a" + (1).to_bytes(8, "big")).end == windows.FOREVER_MS
