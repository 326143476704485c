"""``emit=`` means the same everywhere; an operator that cannot do one of its words says which one can."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import pytest

from streamstate import Topology, TopologyError, aggregates, serde, time_limit, windows
from streamstate.graph.describe import describe_json, describe_text
from streamstate.graph.emit import Emit, StreamEmit, TableEmit, WindowEmit
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, LONG = serde.string(), serde.long()
MINUTE = timedelta(minutes=1)


def grouped(topology: Topology) -> Any:
    return topology.stream("in", key=TEXT, value=LONG).group_by_key()


OPERATORS: dict[str, tuple[Any, Callable[[Topology, Any], Any]]] = {
    "to_stream": (StreamEmit, lambda t, emit: grouped(t).count(store="s").to_stream(emit=emit)),
    "table": (TableEmit, lambda t, emit: t.table("in", key=TEXT, value=LONG, emit=emit)),
    "to_table": (
        TableEmit,
        lambda t, emit: t.stream("in", key=TEXT, value=LONG).to_table(store="s", emit=emit),
    ),
    "count by window": (
        WindowEmit,
        lambda t, emit: grouped(t).windowed_by(windows.tumbling(MINUTE)).count(store="s", emit=emit),
    ),
    "aggregate by session": (
        WindowEmit,
        lambda t, emit: grouped(t).windowed_by(windows.session(MINUTE)).aggregate(
            n=aggregates.count(), store="s", emit=emit),
    ),
    "cogroup by window": (
        WindowEmit,
        lambda t, emit: grouped(t).cogroup(lambda key, value, n: n + 1).windowed_by(windows.tumbling(MINUTE)).aggregate(
            initializer=int, value=LONG, store="s", emit=emit),
    ),
}  # fmt: skip
# What an error names for what an operator cannot do.
ELSEWHERE = {"change": "to_stream(emit='change')", "commit": "to_stream(emit='commit')", "close": "windowed_by"}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("emit", get_args(Emit))
def test_each_word_is_done_or_explained(name: str, emit: str) -> None:
    allowed, build = OPERATORS[name]
    topology = Topology("t")
    if emit in get_args(allowed):
        build(topology, emit)
        topology.build()
        return
    with pytest.raises(TopologyError) as refused:
        build(topology, emit)
    assert f"not {emit!r}: " in str(refused.value)
    assert ELSEWHERE[emit] in str(refused.value)
    assert all(repr(word) in str(refused.value) for word in get_args(allowed))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("emit", ["sometimes", None, ["update"]])
def test_other_words_are_refused(name: str, emit: Any) -> None:
    build = OPERATORS[name][1]
    with pytest.raises(TopologyError, match="takes emit='update'") as refused:
        build(Topology("t"), emit)
    assert str(refused.value).endswith(f"not {emit!r}")


def test_every_operator_speaks_the_one_vocabulary() -> None:
    words = {word for allowed, _ in OPERATORS.values() for word in get_args(allowed)}
    assert words == set(get_args(Emit))


# -- no time limit -----------------------------------------------------------------------------------------


def held_back(**arguments: Any) -> Topology:
    topology = Topology("t")
    table = topology.table("in", key=TEXT, value=LONG)
    table.suppress(time_limit(None), store="held", **arguments).to_stream().to("out")
    return topology


def test_without_a_time_limit_changes_go_when_there_is_no_room() -> None:
    topology = held_back(max_records=2)
    assert "no time limit, max_records 2, then emit" in describe_text(topology.build(), "app")
    with TopologyTestDriver(topology) as driver:
        for number, key in enumerate("abacd"):
            driver.input("in").pipe(key, number, timestamp=number * 1_000_000_000)
        assert driver.output("out").pairs() == [("a", 2), ("b", 1)]
        driver.crash()
        driver.input("in").pipe("e", 9, timestamp=5_000_000_000)
        assert driver.output("out").pairs() == [("a", 2), ("b", 1), ("c", 3)]


@pytest.mark.parametrize("arguments", [{}, {"max_records": 5, "when_full": "stop"}])
def test_without_any_limit_nothing_would_go(arguments: dict[str, Any]) -> None:
    with pytest.raises(TopologyError, match=r"time_limit\(None\) changes go only when there is no more room"):
        held_back(**arguments)


# -- grace -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [windows.tumbling, windows.sliding, windows.session])
@pytest.mark.parametrize("grace", [None, timedelta(0), MINUTE])
def test_describe_says_whether_a_grace_is_the_default(made: Any, grace: timedelta | None) -> None:
    topology = Topology("t")
    chosen = made(MINUTE) if grace is None else made(MINUTE, grace=grace)
    grouped(topology).windowed_by(chosen).count(store="s")
    text = describe_text(topology.build(), "app")
    [part] = describe_json(topology.build(), "app")["subtopologies"]
    if grace == MINUTE:
        assert "grace_ms 60000, " in text
        assert part["nodes"][1]["grace_is_default"] is False
    else:
        assert "grace_ms 0 (the default grace)" in text
        assert part["nodes"][1]["grace_is_default"] is True


def test_describe_says_so_of_joins() -> None:
    topology = Topology("t")
    left = topology.stream("in", key=TEXT, value=LONG)
    right = topology.stream("other", key=TEXT, value=LONG)
    prices = topology.table("prices", key=TEXT, value=LONG, versioned=MINUTE).filter(lambda key, value: True)
    left.join(right, max, within=windows.join(MINUTE), store="a")
    left.join(right, max, within=windows.join(MINUTE, grace=MINUTE), store="b")
    left.join(prices, max, name="c")
    left.join(prices, max, name="d", grace=timedelta(seconds=5), tolerance=MINUTE)
    left.join(topology.table("rows", key=TEXT, value=LONG), max, name="e")
    lines = {line.split()[0]: line for line in describe_text(topology.build(), "app").splitlines() if line.strip()}
    assert "within before_ms 60000 after_ms 60000 grace_ms 0 (the default grace)" in lines["a.join"]
    assert "grace_ms 60000, " in lines["b.join"]
    assert "grace_ms 0 (the default grace)" in lines["c"]
    assert "grace_ms 5000, tolerance_ms 60000" in lines["d"]
    assert "grace" not in lines["e"]
