"""Every case, through the public API, on both kinds of state; and that the comparison can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamstate.rocksdb import RocksDisk
from streamstate.testing.memory_broker.application import Disk
from tests.conformance import (  # noqa: F401 - importing registers
    topologies_basic,
    topologies_joins,
    topologies_own,
    topologies_tables,
    topologies_windows,
)
from tests.conformance.cases import BUILDERS, Case, compared, load, own, run, windows_compared
from tests.conformance.not_built_yet import NOT_BUILT_YET

CASES = load()


@pytest.mark.parametrize("backend", ["memory", "rocksdb"])
@pytest.mark.parametrize("source", [source for source in CASES if source in BUILDERS])
def test_case(source: str, backend: str, tmp_path: Path) -> None:
    case = CASES[source]
    disk = Disk() if backend == "memory" else RocksDisk(tmp_path / "state")
    assert run(case, BUILDERS[source](case), disk) == []


def test_the_cases_without_a_builder_are_those_listed() -> None:
    assert sorted(set(CASES) - set(BUILDERS)) == sorted(NOT_BUILT_YET)


def test_the_cases_are_all_there_and_each_is_looked_at_to_its_end() -> None:
    assert len(CASES) == 56 + len(own())
    assert {case.topology for case in own().values()} == set(topologies_own.MADE)
    for case in CASES.values():
        for topic in case.outputs:
            assert max(c["after_input"] for c in case.checks if c["topic"] == topic) == len(case.inputs), case.source


# -- the comparison can fail -------------------------------------------------------------------------------


def expected(case: Case, topic: str) -> list[Any]:
    return [(o["key"], o["value"], o.get("ts", 0)) for o in case.expected_outputs if o["topic"] == topic]


def wrong(case: Case, topic: str, found: list[Any]) -> list[str]:
    if case.comparison == "set_per_window":
        return windows_compared(case, topic, found)
    return compared(case, topic, found, since=0, upto=len(case.inputs), count=len(found))


def whole(case: Case) -> Case:
    """The case as if it were checked once, at its end."""
    if case.comparison != "map":
        return case
    last = {o["key"]: o for o in case.expected_outputs}
    return replace(case, expected_outputs=list(last.values()))


@pytest.mark.parametrize("source", [source for source in CASES if CASES[source].expected_outputs])
def test_what_is_missing_extra_or_different_is_noticed(source: str) -> None:
    case = whole(CASES[source])
    topic = case.expected_outputs[0]["topic"]
    right = expected(case, topic)
    key, value, time = right[-1]
    other = {"key": "no", "start": 0, "end": 1} if isinstance(key, dict) else "no"
    assert wrong(case, topic, right) == []
    assert wrong(case, topic, right[:-1])
    assert wrong(case, topic, [*right, (other, value, time)])
    assert wrong(case, topic, [*right[:-1], (key, f"not {value}", time)])
    if "ts" in case.expected_outputs[-1]:
        assert wrong(case, topic, [*right[:-1], (key, value, time + 1)])


@pytest.mark.parametrize("source", [s for s in CASES if CASES[s].comparison == "ordered"])
def test_a_changed_order_is_noticed_unless_it_is_free(source: str) -> None:
    case = CASES[source]
    for topic in case.outputs:
        right = expected(case, topic)
        for index in range(len(right) - 1):
            first, second = right[index : index + 2]
            swapped = [*right[:index], second, first, *right[index + 2 :]]
            keys = [o["key"] if isinstance(o, dict) else o for o in (first[0], second[0])]
            free = case.cross_key_order_impl_defined and keys[0] != keys[1]
            assert bool(wrong(case, topic, swapped)) is (first != second and not free), (topic, index)


def test_what_comes_too_early_or_too_late_is_noticed() -> None:
    case = CASES["SuppressScenarioTest#shouldImmediatelyEmitEventsWithZeroEmitAfter"]
    found = expected(case, "output-raw")
    assert compared(case, "output-raw", found[:4], since=0, upto=3, count=4) == []
    assert compared(case, "output-raw", found[:5], since=0, upto=3, count=4)
    assert compared(case, "output-raw", found[:3], since=0, upto=3, count=4)
