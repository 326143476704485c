"""What a session sends when it grows: the deletion of each session that it replaces, then its result."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import Topology, serde, time_limit, window_close, windows
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, NUMBER = serde.string(), serde.long()


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


def sessions(kind: str, topology: Topology, emit: Any = "update") -> Any:
    """Concatenated values by session, from one stream or from two."""
    words = topology.stream("words", key=TEXT, value=TEXT).group_by_key()
    within = windows.session(ms(10), grace=ms(5))
    if kind == "reduced":
        return words.windowed_by(within).reduce(lambda one, other: one + other, store="s", emit=emit)
    added = words.cogroup(lambda key, word, all_: all_ + word)
    if kind == "cogrouped":
        more = topology.stream("more", key=TEXT, value=TEXT).group_by_key()
        added = added.cogroup(more, lambda key, word, all_: all_ + word)
    return added.windowed_by(within).aggregate(
        initializer=str, merger=lambda key, one, other: one + other, value=TEXT, store="s", emit=emit
    )


def shown(stream: Any) -> None:
    stream.map(lambda window, value: (f"{window.key}@{window.start}-{window.end}", value)).to(
        "out", key=TEXT, value=TEXT
    )


class Played:
    """Words in, what comes of each out."""

    def __init__(self, topology: Topology) -> None:
        self.driver = TopologyTestDriver(topology)
        self._out = self.driver.output("out")

    def pipe(self, word: str, time: int, topic: str = "words", key: str = "k") -> list[tuple[Any, Any, int]]:
        self.driver.input(topic).pipe(key, word, timestamp=time)
        return [(record.key, record.value, record.timestamp) for record in self._out.read_all()]


KINDS = ["reduced", "aggregated", "cogrouped"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_within_a_session_replaces_it(kind: str) -> None:
    topology = Topology("t")
    shown(sessions(kind, topology).to_stream())
    played = Played(topology)
    other = "more" if kind == "cogrouped" else "words"
    assert played.pipe("a", 0) == [("k@0-0", "a", 0)]
    # A point that takes the same point: an update.
    assert played.pipe("b", 0, other) == [("k@0-0", "ab", 0)]
    assert played.pipe("c", 5) == [("k@0-0", None, 0), ("k@0-5", "abc", 5)]
    # Its bounds stay: in the middle, at its start, at its end.
    assert played.pipe("d", 3, other) == [("k@0-5", None, 5), ("k@0-5", "abcd", 5)]
    played.driver.crash(disk="lost")
    assert played.pipe("e", 0) == [("k@0-5", None, 5), ("k@0-5", "abcde", 5)]
    assert played.pipe("f", 5) == [("k@0-5", None, 5), ("k@0-5", "abcdef", 5)]
    # Two become one.
    assert played.pipe("g", 20) == [("k@20-20", "g", 20)]
    assert played.pipe("h", 12, other) == [
        ("k@0-5", None, 5),
        ("k@20-20", None, 20),
        ("k@0-20", "abcdefgh", 20),
    ]
    played.driver.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_behind_sessions_takes_off_what_it_has_added(kind: str) -> None:
    topology = Topology("t")
    grouped = sessions(kind, topology).group_by(lambda window, value: window.key, key=TEXT)
    grouped.aggregate(
        initializer=str,
        adder=lambda key, value, seen: f"{seen}+{value}",
        subtractor=lambda key, value, seen: f"{seen}-{value}",
        value=TEXT,
        store="g",
    ).to_stream().to("out")
    played = Played(topology)
    assert played.pipe("a", 0) == [("k", "+a", 0)]
    assert played.pipe("b", 0) == [("k", "+a-a+ab", 0)]
    assert played.pipe("c", 5) == [("k", "+a-a+ab-ab", 0), ("k", "+a-a+ab-ab+abc", 5)]
    assert played.pipe("d", 3)[-1] == ("k", "+a-a+ab-ab+abc-abc+abcd", 5)
    played.driver.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_sessions_back_sends_the_last_of_it(kind: str) -> None:
    for until in (window_close(), time_limit(ms(15))):
        topology = Topology("t")
        shown(sessions(kind, topology).suppress(until, store="held").to_stream())
        played = Played(topology)
        for word, time in (("a", 0), ("b", 5), ("c", 3), ("d", 5)):
            assert played.pipe(word, time) == []
        sent = played.pipe("z", 100, key="other")
        assert [record for record in sent if record[1] is not None] == [("k@0-5", "abcd", 5)]
        played.driver.close()


@pytest.mark.parametrize("kind", KINDS)
def test_final_results_and_results_of_a_commit_have_no_deletion_of_a_session_that_lives(kind: str) -> None:
    topology = Topology("t")
    shown(sessions(kind, topology, emit="close").to_stream())
    played = Played(topology)
    for word, time in (("a", 0), ("b", 5), ("c", 3)):
        assert played.pipe(word, time) == []
    assert played.pipe("z", 100, key="other") == [("k@0-5", "abc", 5)]
    played.driver.close()

    topology = Topology("t")
    shown(sessions(kind, topology).to_stream(emit="commit"))
    played = Played(topology)
    played.driver.auto_commit = False
    for word, time in (("a", 0), ("b", 5), ("c", 3)):
        assert played.pipe(word, time) == []
    played.driver.commit()
    assert sorted(played.driver.output("out").read_all(), key=lambda record: record.key)[-1].value == "abc"
    played.driver.close()


def test_a_join_with_a_table_of_sessions_finds_the_session_that_was_replaced_by_itself() -> None:
    topology = Topology("t")
    words = topology.stream("words", key=TEXT, value=TEXT)
    table = words.group_by_key().windowed_by(windows.session(ms(10), grace=ms(5))).count(store="s")
    counts = topology.stream("words-of", key=windows.windowed_serde(windows.session(ms(10)), TEXT), value=TEXT)
    counts.join(table, lambda word, count: f"{word}{count}").map_values(str).to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        for time in (0, 5, 3):
            driver.input("words").pipe("k", "w", timestamp=time)
        driver.input("words-of").pipe(windows.Windowed("k", 0, 5), "n", timestamp=6)
        assert driver.output("out").values() == ["n3"]
