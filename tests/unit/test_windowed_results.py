"""When windowed results come out, where late records go, and what they are made of; by the driver."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import Topology, TopologyError, Windowed, aggregates, serde, windows
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
NUMBER = serde.long()
JSON = serde.json()


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


def grouped(topology: Topology) -> Any:
    return topology.stream("in", key=TEXT, value=JSON).group_by_key()


def piped(topology: Topology, *records: tuple[str, Any, int]) -> TopologyTestDriver:
    driver = TopologyTestDriver(topology)
    for key, value, time in records:
        driver.input("in").pipe(key, value, timestamp=time)
    return driver


def out(driver: TopologyTestDriver, topic: str = "out", readers: dict[Any, Any] = {}) -> list[tuple[Any, Any, int]]:  # noqa: B006
    """What came since the last time."""
    reader = readers.setdefault((driver, topic), driver.output(topic))
    return [(record.key, record.value, record.timestamp) for record in reader.read_all()]


def test_a_closed_window_has_one_result_at_the_record_that_closes_it() -> None:
    topology = Topology("t")
    table = grouped(topology).windowed_by(windows.tumbling(ms(10), grace=ms(5))).count(store="s", emit="close")
    table.to_stream().to("out")
    with piped(topology, ("b", 1, 1), ("a", 1, 9), ("b", 1, 14), ("b", 1, 2)) as driver:
        assert out(driver) == []
        driver.input("in").pipe("c", 1, timestamp=15)
        assert out(driver) == [(Windowed("a", 0, 10), 1, 9), (Windowed("b", 0, 10), 2, 2)]
        driver.input("in").pipe("c", 1, timestamp=1_000)
        assert out(driver) == [(Windowed("b", 10, 20), 1, 14), (Windowed("c", 10, 20), 1, 15)]


def test_what_is_open_at_a_crash_closes_after_it_and_once() -> None:
    topology = Topology("t")
    records = grouped(topology)
    for name, made in (("hop", windows.hopping(ms(10), ms(5))), ("session", windows.session(ms(10)))):
        table = records.windowed_by(made).count(store=name, emit="close")
        table.to_stream().to(f"out-{name}")
    with piped(topology, ("a", 1, 7), ("a", 1, 13)) as driver:
        assert out(driver, "out-hop") == [(Windowed("a", 0, 10), 1, 7)]
        driver.crash(disk="lost")
        driver.input("in").pipe("b", 1, timestamp=100)
        assert (
            out(driver, "out-hop")
            == [
                (Windowed("a", 0, 10), 1, 7),
                (Windowed("a", 5, 15), 2, 13),
                (Windowed("a", 10, 20), 1, 13),
            ][1:]
        )
        assert out(driver, "out-session") == [(Windowed("a", 7, 13), 2, 13)]


def test_a_window_that_was_committed_and_then_updated_closes_with_the_update() -> None:
    topology = Topology("t")
    table = grouped(topology).windowed_by(windows.tumbling(ms(10))).count(store="s", emit="close")
    table.to_stream().to("out")
    with TopologyTestDriver(topology, auto_commit=False) as driver:
        driver.input("in").pipe("a", 1, timestamp=1)
        driver.commit()
        driver.input("in").pipe("a", 1, timestamp=2)
        driver.input("in").pipe("b", 1, timestamp=12)
        driver.commit()
        assert out(driver) == [(Windowed("a", 0, 10), 2, 2)]


def test_newest_at_each_commit() -> None:
    topology = Topology("t")
    table = grouped(topology).windowed_by(windows.tumbling(ms(10))).count(store="s", emit="commit")
    table.to_stream().to("out")
    with TopologyTestDriver(topology, auto_commit=False) as driver:
        for time in (1, 2, 11, 12):
            driver.input("in").pipe("a", 1, timestamp=time)
        assert out(driver) == []
        driver.commit()
        assert out(driver) == [(Windowed("a", 0, 10), 2, 2), (Windowed("a", 10, 20), 2, 12)]
        driver.commit()
        assert out(driver) == []


def test_a_session_that_came_and_went_between_two_commits_is_not_sent() -> None:
    topology = Topology("t")
    table = grouped(topology).windowed_by(windows.session(ms(10))).count(store="s", emit="commit")
    table.to_stream().to("out")
    with TopologyTestDriver(topology, auto_commit=False) as driver:
        for time in (1, 5, 9):
            driver.input("in").pipe("a", 1, timestamp=time)
        driver.commit()
        assert out(driver) == [(Windowed("a", 1, 9), 3, 9)]
        driver.input("in").pipe("a", 1, timestamp=12)
        driver.commit()
        assert out(driver) == [(Windowed("a", 1, 9), None, 9), (Windowed("a", 1, 12), 4, 12)]
        changelog = driver.broker.read("t-s-changelog")
        keys = [record.key() for record in changelog]
        # Of the sessions in between there is no trace: two that were committed, one tombstone, the time twice.
        assert len(keys) == 5


def test_sessions_merge_across_segments() -> None:
    topology = Topology("t")
    table = grouped(topology).windowed_by(windows.session(ms(50_000), grace=ms(200_000))).count(store="s")
    table.to_stream().to("out")
    with piped(topology, ("a", 1, 100_000), ("a", 1, 190_000), ("a", 1, 145_000)) as driver:
        assert out(driver) == [
            (Windowed("a", 100_000, 100_000), 1, 100_000),
            (Windowed("a", 190_000, 190_000), 1, 190_000),
            (Windowed("a", 100_000, 100_000), None, 100_000),
            (Windowed("a", 190_000, 190_000), None, 190_000),
            (Windowed("a", 100_000, 190_000), 3, 190_000),
        ]
        assert list(driver.store("s").all()) == [(Windowed("a", 100_000, 190_000), 3)]


@pytest.mark.parametrize(
    ("made", "late_by"),
    [
        (windows.tumbling(ms(10), grace=ms(5)), 100 - 5 - 10),
        (windows.hopping(ms(10), ms(5), grace=ms(5)), 100 - 5 - 15),
        (windows.sliding(ms(10), grace=ms(5)), 100 - 5 - 17),
        (windows.session(ms(10), grace=ms(5)), 100 - 5 - 10 - 7),
    ],
)
@pytest.mark.parametrize("ready", [True, False])
def test_late_records_go_to_their_topic_with_how_late_they_were(made: Any, late_by: int, ready: bool) -> None:
    topology = Topology("t")
    windowed = grouped(topology).windowed_by(made).late_to("late")
    if ready:
        windowed.aggregate(newest=aggregates.latest("n"), store="s").to_stream().to("out", value=JSON)
    else:
        windowed.count(store="s").to_stream().to("out")
    with TopologyTestDriver(topology, topics=["late"]) as driver:
        driver.input("in").pipe("a", {"n": 1}, timestamp=100)
        driver.input("in").pipe("b", {"n": 2}, timestamp=7, headers=[("mine", b"1")])
        [late] = driver.output("late", key=TEXT, value=JSON).read_all()
        assert (late.key, late.value, late.timestamp) == ("b", {"n": 2}, 7)
        assert dict(late.headers) == {"mine": b"1", "streamstate.late_ms": b"%d" % late_by}
        assert {windowed.key for windowed, _, _ in out(driver)} == {"a"}


def test_idle_partitions_close_by_the_wall_clock_when_asked_to() -> None:
    topology = Topology("t")
    table = grouped(topology).windowed_by(windows.tumbling(ms(1_000))).count(
        store="s", emit="close", idle=timedelta(seconds=5)
    )  # fmt: skip
    table.to_stream().to("out")
    with piped(topology, ("a", 1, 10_500)) as driver:
        driver.advance(timedelta(seconds=5))
        assert out(driver) == [], "a record came in this time"
        driver.advance(timedelta(seconds=5))
        assert out(driver) == [(Windowed("a", 10_000, 11_000), 1, 10_500)]
        driver.crash(disk="lost")
        driver.input("in").pipe("a", 1, timestamp=10_700)
        driver.input("in").pipe("a", 1, timestamp=16_000)
        assert out(driver) == [], "late: the wall clock had closed its window"
        driver.advance(timedelta(seconds=5))
        driver.advance(timedelta(seconds=50))
        assert out(driver) == [(Windowed("a", 16_000, 17_000), 1, 16_000)]
        driver.input("in").pipe("a", 1, timestamp=20_000)
        driver.input("in").pipe("a", 1, timestamp=90_000)
        assert out(driver) == []


def test_ready_aggregates_over_sessions() -> None:
    topology = Topology("t")
    table = grouped(topology).windowed_by(windows.session(ms(10), grace=ms(100))).aggregate(
        n=aggregates.count(), total=aggregates.sum("v"), least=aggregates.min("v"), most=aggregates.max("v"),
        mean=aggregates.mean("v"), first=aggregates.first("v"), last=aggregates.last("v"),
        earliest=aggregates.earliest("v"), latest=aggregates.latest("v"), all=aggregates.collect("v"),
        top=aggregates.top_k(2, "v"), distinct=aggregates.approximate_distinct("v"), store="s",
    )  # fmt: skip
    table.to_stream().to("out", value=JSON)
    with piped(topology, ("a", {"v": 5}, 30), ("a", {"v": 9}, 15), ("a", {"v": 1}, 12)) as driver:
        driver.crash(disk="lost")
        driver.input("in").pipe("a", {"v": 5}, timestamp=22)
        windowed, found, _ = out(driver)[-1]
        assert windowed == Windowed("a", 12, 30)
        assert found == {
            "n": 4, "total": 20, "least": 1, "most": 9, "mean": 5.0, "first": 9, "last": 5, "earliest": 1, "latest": 5,
            "all": [9, 1, 5, 5], "top": [9, 5], "distinct": 3,
        }  # fmt: skip


def test_an_aggregate_without_a_merger_is_refused_for_sessions() -> None:
    mine = aggregates.Aggregate("mine", 0, lambda state, value: state + 1, lambda state: state)
    with pytest.raises(TopologyError, match="odd cannot merge two states"):
        grouped(Topology("t")).windowed_by(windows.session(ms(1))).aggregate(odd=mine, n=aggregates.count(), store="s")


@pytest.mark.parametrize("made", [windows.tumbling(ms(1)), windows.session(ms(1))])
def test_aggregate_takes_the_functions_that_fit_the_windows(made: Any) -> None:
    functions = {"initializer": lambda: 0, "aggregator": lambda key, value, seen: 0}
    merger = {"merger": lambda key, one, other: 0}
    wanted = functions | (merger if isinstance(made, windows.SessionWindows) else {})

    def aggregated(**given: Any) -> Any:
        by_window: Any = grouped(Topology("t")).windowed_by(made)
        return by_window.aggregate(**given, store="s")

    for name in wanted:
        with pytest.raises(TopologyError, match=r"takes either (two|three) functions"):
            aggregated(**{other: function for other, function in wanted.items() if other != name}, value=JSON)
    if "merger" not in wanted:
        with pytest.raises(TopologyError, match="takes either two functions"):
            aggregated(**wanted, **merger, value=JSON)
    with pytest.raises(TopologyError, match="serde of the aggregate"):
        aggregated(**wanted)
    with pytest.raises(TopologyError, match="takes windows"):
        grouped(Topology("t")).windowed_by(timedelta(1))


def test_reduce_over_windows_and_sessions() -> None:
    topology = Topology("t")
    words = topology.stream("in", key=TEXT, value=TEXT).group_by_key()
    for name, made in (("time", windows.tumbling(ms(100))), ("session", windows.session(ms(10), grace=ms(50)))):
        words.windowed_by(made).reduce(lambda one, other: one + other, store=name).to_stream().to(f"out-{name}")  # type: ignore[call-overload]
    with TopologyTestDriver(topology) as driver:
        for word, time in (("x", 1), ("y", 15), ("z", 8)):
            driver.input("in").pipe("a", word, timestamp=time)
        assert [value for _, value, _ in out(driver, "out-time")] == ["x", "xy", "xyz"]
        assert [value for _, value, _ in out(driver, "out-session")] == ["x", "y", None, None, "xyz"]


def test_a_sliding_window_made_of_later_records_shows_the_result_and_not_the_state() -> None:
    topology = Topology("t")
    table = grouped(topology).windowed_by(windows.sliding(ms(10), grace=ms(100)))
    table.aggregate(mean=aggregates.mean(), store="s").to_stream().to("out", value=JSON)
    with piped(topology, ("a", 3, 105), ("a", 5, 110), ("a", 1, 103)) as driver:
        found = {windowed: value for windowed, value, _ in out(driver)}
        assert found[Windowed("a", 104, 114)] == {"mean": 4.0}
        assert all(set(value) == {"mean"} for value in found.values())


def test_functions_in_their_order_need_no_names() -> None:
    in_order: Any = grouped(Topology("t")).aggregate(list, lambda key, value, seen: seen, value=JSON, store="s")
    assert in_order.store == "s"
    count: Any = aggregates.count()
    with pytest.raises(TopologyError, match="got a ready aggregate without a name"):
        grouped(Topology("t")).aggregate(count, store="s")
    one: Any = grouped(Topology("t"))
    with pytest.raises(TopologyError, match="got initializer= twice"):
        one.aggregate(list, initializer=list, value=JSON, store="s")
    with pytest.raises(TopologyError, match="takes two functions, initializer, aggregator, not 3"):
        one.aggregate(list, lambda key, value, seen: seen, list, value=JSON, store="s")
