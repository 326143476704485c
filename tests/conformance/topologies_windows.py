"""Windows, sessions, cogroup, suppress."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from streamstate import Table, Topology, serde, time_limit, window_close, windows
from tests.conformance.cases import Case, builds

NUMBER = serde.integer()
LONG = serde.long()
TEXT = serde.string()


def ms(value: str | int) -> timedelta:
    return timedelta(milliseconds=int(value))


def described(case: Case) -> Any:
    """The windows that a case's topology describes in words."""
    found = re.findall(r"(size|advance|grace|difference|gap|tumbling window) (\d+)", case.topology)
    numbers = {name: ms(value) for name, value in found}
    grace = numbers["grace"]
    if "hopping" in case.topology:
        return windows.hopping(numbers["size"], numbers["advance"], grace=grace)
    if "tumbling" in case.topology:
        return windows.tumbling(numbers.get("size") or numbers["tumbling window"], grace=grace)
    if "sliding" in case.topology:
        return windows.sliding(numbers["difference"], grace=grace)
    assert "session" in case.topology
    return windows.session(numbers["gap"], grace=grace)


def emits(case: Case) -> Any:
    return "close" if "emit on window close" in case.topology else "update"


@builds(
    "KStreamWindowAggregateTest#testAggBasic[ON_WINDOW_UPDATE]",
    "KStreamWindowAggregateTest#shouldEmitWithInterval0[ON_WINDOW_UPDATE]",
    "KStreamWindowAggregateTest#shouldEmitWithInterval0[ON_WINDOW_CLOSE]",
    "KStreamSlidingWindowAggregateTest#testAggregateSmallInput[ON_WINDOW_UPDATE]",
    "KStreamSlidingWindowAggregateTest#testAggregateSmallInput[ON_WINDOW_CLOSE]",
    "KStreamSlidingWindowAggregateTest#testEarlyRecordsRepeatedInput[ON_WINDOW_UPDATE]",
    "KStreamSlidingWindowAggregateTest#testEarlyRecordsRepeatedInput[ON_WINDOW_CLOSE]",
)
def concatenated(case: Case) -> Topology:
    topology = Topology("windows")
    [source] = {record["topic"] for record in case.inputs}
    grouped = topology.stream(source, key=TEXT, value=TEXT).group_by_key()
    table: Table[Any, str] = grouped.windowed_by(described(case)).aggregate(
        initializer=lambda: "0",
        aggregator=lambda key, value, so_far: f"{so_far}+{value}",
        value=TEXT,
        store="windows",
        emit=emits(case),
    )
    table.to_stream().to("output")
    return topology


@builds(
    "TimeWindowedKStreamImplTest#shouldCountWindowed[ON_WINDOW_UPDATE]",
    "TimeWindowedKStreamImplTest#shouldCountWindowed[ON_WINDOW_CLOSE]",
    "SessionWindowedKStreamImplTest#shouldCountSessionWindowed[ON_WINDOW_UPDATE]",
    "SessionWindowedKStreamImplTest#shouldCountSessionWindowed[ON_WINDOW_CLOSE]",
    "KStreamSessionWindowAggregateProcessorTest#shouldHaveMultipleSessionsForSameIdWhenTimestampApartBySessionGap[ON_WINDOW_CLOSE]",
    "KStreamSessionWindowAggregateProcessorTest#shouldImmediatelyForwardNewSessionWhenNonCachedStore[ON_WINDOW_UPDATE]",
)
def counted(case: Case) -> Topology:
    topology = Topology("windows")
    [source] = {record["topic"] for record in case.inputs}
    grouped = topology.stream(source, key=TEXT, value=TEXT).group_by_key()
    table: Table[Any, int] = grouped.windowed_by(described(case)).count(store="windows", emit=emits(case))
    table.to_stream().to("output")
    return topology


@builds(
    "SuppressScenarioTest#shouldSupportFinalResultsForTimeWindows",
    "SuppressScenarioTest#shouldSupportFinalResultsForSlidingWindows",
)
def suppressed_windows(case: Case) -> Topology:
    topology = Topology("suppress")
    grouped = topology.stream("input", key=TEXT, value=TEXT).group_by_key()
    table: Table[Any, int] = grouped.windowed_by(described(case)).count(store="windows")
    table.suppress(window_close(), store="held").to_stream().to("output-suppressed")
    table.to_stream().to("output-raw")
    return topology


@builds("SuppressScenarioTest#shouldImmediatelyEmitEventsWithZeroEmitAfter")
def suppressed_for_no_time(case: Case) -> Topology:
    topology = Topology("suppress")
    rows = topology.table("input", key=TEXT, value=TEXT)
    groups = rows.group_by(lambda key, value: value, select=lambda key, value: key, key=TEXT, value=TEXT)
    counts = groups.count(store="n")
    counts.suppress(time_limit(ms(0)), store="held").to_stream().to("output-suppressed")
    counts.to_stream().to("output-raw")
    return topology


@builds("SuppressScenarioTest#shouldWorkBeforeJoinLeft")
def suppressed_before_a_join(case: Case) -> Topology:
    topology = Topology("suppress")
    left = topology.table("left", key=TEXT, value=TEXT).suppress(time_limit(ms(10)), store="held")
    right = topology.table("right", key=TEXT, value=TEXT)
    joined = left.outer_join(right, lambda one, other: f"({one or 'null'},{other or 'null'})")
    joined.to_stream().to("output", value=TEXT)
    return topology


@builds("CogroupedKStreamImplTest#testCogroupKeyMixedAggregators")
def cogrouped(case: Case) -> Topology:
    topology = Topology("cogroup")
    one, two = (topology.stream(name, key=TEXT, value=TEXT).group_by_key() for name in ("one", "two"))
    both = one.cogroup(lambda key, value, so_far: f"{so_far}-{value}").cogroup(
        two, lambda key, value, so_far: f"{so_far}+{value}"
    )
    both.aggregate(initializer=lambda: "0", value=TEXT, store="both").to_stream().to("output")
    return topology
