"""The time of an operator moves with the records that it keeps, and with no others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import Topology, serde, windows
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
FAR = 100_000


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


def pair(left: Any, right: Any) -> str:
    return f"{left}+{right}"


def results(driver: TopologyTestDriver) -> list[tuple[Any, Any, int]]:
    return [(record.key, record.value, record.timestamp) for record in driver.output("out").read_all()]


def waiting_for_a_table(kind: str) -> TopologyTestDriver:
    topology = Topology("t")
    table = topology.table("rows", key=TEXT, value=TEXT, versioned=ms(50))
    stream = topology.stream("lines", key=TEXT, value=TEXT)
    getattr(stream, kind)(table, pair, grace=ms(5), name="joined").to("out", value=TEXT)
    return TopologyTestDriver(topology)


def joined_streams(kind: str) -> TopologyTestDriver:
    topology = Topology("t")
    left, right = (topology.stream(name, key=TEXT, value=TEXT) for name in ("left", "right"))
    within = windows.join(ms(10), grace=ms(5))
    getattr(left, kind)(right, pair, within=within, store="j").to("out", value=TEXT)
    return TopologyTestDriver(topology)


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(
    ("kind", "key", "value", "alone"),
    [
        ("join", "a", None, []),
        ("left_join", "a", None, []),
        ("join", None, "no key", []),
        ("left_join", None, "no key", [(None, "no key+None", FAR)]),
    ],
)
def test_what_does_not_wait_for_a_table_takes_nobodys_grace(
    kind: str, key: Any, value: Any, alone: list[Any], crash: bool
) -> None:
    with waiting_for_a_table(kind) as driver:
        out, lines, rows = driver.output("out"), driver.input("lines"), driver.input("rows")
        lines.pipe(key, value, timestamp=FAR)
        assert [(record.key, record.value, record.timestamp) for record in out.read_all()] == alone
        assert driver.status().dropped == (0 if alone else 1)
        lines.pipe("a", "waits", timestamp=10)
        if crash:
            driver.crash(disk="lost")
        # Its row comes later, and is still there for it.
        rows.pipe("a", "row", timestamp=8)
        assert out.values() == []
        lines.pipe("b", "lets it go", timestamp=15)
        assert out.values() == ["waits+row"]


def test_a_record_that_is_later_than_the_grace_releases_nothing_and_waits_for_nothing() -> None:
    with waiting_for_a_table("left_join") as driver:
        lines = driver.input("lines")
        out = driver.output("out")
        lines.pipe("a", "20", timestamp=20)
        lines.pipe("a", "14", timestamp=14)
        assert out.values() == ["14+None"]
        # As late as the grace allows: kept, and let go at once.
        lines.pipe("a", "15", timestamp=15)
        assert out.values() == ["15+None"]
        lines.pipe("a", "25", timestamp=25)
        assert out.values() == ["20+None"]


@pytest.mark.parametrize("topic", ["left", "right"])
@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("join", "a", None),
        ("join", None, "no key"),
        ("left_join", "a", None),
        ("left_join", None, "no key"),
        ("outer_join", "a", None),
        ("outer_join", None, "no key"),
    ],
)
def test_what_a_join_of_streams_does_not_keep_moves_no_time(kind: str, topic: str, key: Any, value: Any) -> None:
    with joined_streams(kind) as driver:
        out = driver.output("out")
        driver.input(topic).pipe(key, value, timestamp=FAR)
        out.read_all()
        driver.input("left").pipe("b", "left", timestamp=50)
        assert out.values() == [], "it waits for its window and grace"
        driver.input("right").pipe("b", "right", timestamp=51)
        assert out.values() == ["left+right"]


@pytest.mark.parametrize(
    "made",
    [windows.tumbling(ms(10)), windows.hopping(ms(10), ms(5)), windows.sliding(ms(10)), windows.session(ms(10))],
    ids=lambda made: type(made).__name__,
)
@pytest.mark.parametrize("emit", ["update", "close"])
@pytest.mark.parametrize(("key", "value"), [(None, "no key"), ("a", None)])
def test_what_windows_leave_out_moves_no_time(made: Any, emit: Any, key: Any, value: Any) -> None:
    topology = Topology("t")
    grouped = topology.stream("lines", key=TEXT, value=TEXT).group_by_key()
    counts: Any = grouped.windowed_by(made).count(store="c", emit=emit)
    counts.to_stream().map(lambda window, count: (window.key, count)).to("out", key=TEXT, value=serde.long())
    with TopologyTestDriver(topology) as driver:
        driver.input("lines").pipe("a", "first", timestamp=50)
        driver.input("lines").pipe(key, value, timestamp=FAR)
        assert driver.status().dropped == 1
        driver.input("lines").pipe("a", "second", timestamp=52)
        assert driver.status().dropped == 1, "it is not late"
        driver.input("lines").pipe("b", "end", timestamp=FAR)
        assert any(key == "a" and count == 2 for key, count, _ in results(driver))
