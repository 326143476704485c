"""Stream-stream joins."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from streamstate import Stream, Topology, serde, windows
from tests.conformance.cases import Case, builds

NUMBER = serde.integer()
LONG = serde.long()
TEXT = serde.string()

UNITS = {"ms": 1, "s": 1_000, "h": 3_600_000}


def within(case: Case) -> windows.JoinWindows:
    """How far apart records may be, as the case says it in words."""
    text = case.topology

    def said(pattern: str) -> timedelta | None:
        found = re.search(pattern, text)
        return None if found is None else timedelta(milliseconds=int(found[1]) * UNITS[found[2]])

    grace = said(r"grace (\d+) (ms|s|h)")
    assert grace is not None
    after, before = said(r"(\d+) (ms) after"), said(r"(\d+) (ms) before")
    if after is not None:
        return windows.join(before=before, after=after, grace=grace)
    return windows.join(said(r"time difference (\d+) (ms|s)"), grace=grace)


def plus(left: Any, right: Any) -> str:
    return "+".join("null" if value is None else str(value) for value in (left, right))


def joined(case: Case, left: Stream[Any, Any], right: Stream[Any, Any], joiner: Any) -> Stream[Any, str]:
    if "leftJoin" in case.topology:
        return left.left_join(right, joiner, within=within(case), store="join")
    if "outerJoin" in case.topology:
        return left.outer_join(right, joiner, within=within(case), store="join")
    return left.join(right, joiner, within=within(case), store="join")


@builds(
    "KStreamKStreamLeftJoinTest#testLeftJoinDuplicates",
    "KStreamKStreamLeftJoinTest#testRightNonJoinedRecordsAreNeverEmittedByTheLeftProcessor",
    "KStreamKStreamLeftJoinTest#testLeftJoinWithDefaultSuppliers (body runLeftJoin)",
    "KStreamKStreamLeftJoinTest#testWindowing",
    "KStreamKStreamOuterJoinTest#testOuterJoinDuplicates",
    "KStreamKStreamOuterJoinTest#testRightExpiredNonJoinedRecordsAreEmittedByTheLeftProcessor",
    "KStreamKStreamOuterJoinTest#testGracePeriod",
    "KStreamKStreamOuterJoinTest#testShouldNotEmitLeftJoinResultForAsymmetricBeforeWindow",
    "KStreamKStreamJoinTest#testJoin",
    "KStreamKStreamJoinTest#testAsymmetricWindowingAfter",
)
def two_topics(case: Case) -> Topology:
    topology = Topology("join")
    left = topology.stream("topic1", key=NUMBER, value=TEXT)
    right = topology.stream("topic2", key=NUMBER, value=LONG if "int64" in case.topology else TEXT)
    joined(case, left, right, plus).to("output", value=TEXT)
    return topology


def dashed(left: str | None, right: str | None) -> str:
    return f"{left or 'null'}-{right or 'null'}"


@builds("StreamStreamJoinIntegrationTest#testSelfJoin", "StreamStreamJoinIntegrationTest#testOuter")
def left_and_right(case: Case) -> Topology:
    topology = Topology("join")
    left = topology.stream("inputTopicLeft", key=LONG, value=TEXT)
    right = left if "self" in case.topology else topology.stream("inputTopicRight", key=LONG, value=TEXT)
    joined(case, left, right, dashed).to("outputTopic", value=TEXT)
    return topology


@builds("RelaxedNullKeyRequirementJoinTest#testRelaxedLeftStreamStreamJoin")
def through_repartition_topics(case: Case) -> Topology:
    topology = Topology("join")
    left, right = (
        topology.stream(name, key=TEXT, value=TEXT).repartition(name=f"{name}-again") for name in ("left", "right")
    )
    joined(case, left, right, lambda one, other: f"{one or 'null'}|{other or 'null'}").to("out", value=TEXT)
    return topology
