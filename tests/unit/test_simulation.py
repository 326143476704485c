"""The parts of the simulation: expectations that can fail, disks that lose writes, lists of faults, shrinking."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamstate.engine.task.task import TaskId
from streamstate.errors import ConfigError
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.simulation import (
    KINDS,
    WORKLOADS,
    Campaign,
    Exactly,
    Expectation,
    Fault,
    Interleaved,
    NewestOf,
    Output,
    PerKey,
    PerKeyRule,
    chosen_kinds,
    faults_from_json,
    faults_to_json,
    workload_names,
)
from streamstate.testing.simulation.disk import SimulatedBackend, SimulatedDisk
from streamstate.testing.simulation.shrink import shrink

ROOT = Path(__file__).parents[2]


def out(text: str) -> list[Output]:
    """One record per word, such as a1 for the key a and the value 1."""
    return [Output(word[:1].encode(), word[1:].encode()) for word in text.split()]


def problems(expectation: Expectation, *partitions: str) -> list[str]:
    return list(expectation.problems([out(text) for text in partitions]))


# -- expectations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("a1 a2 b1", None),
        ("a1 a2", "1 of 3 records are missing"),
        ("a1 a2 b1 b1", "1 records are extra"),
        ("a1 b1 a2", "record 1"),
        ("a1 a2 b2", "record 2"),
        ("", "3 of 3 records are missing"),
    ],
)
def test_exactly(found: str, says: str | None) -> None:
    result = problems(Exactly([out("a1 a2 b1"), out("c1")]), found, "c1")
    assert result == [] if says is None else says in result[0]


def test_exactly_compares_timestamps_where_there_are_any() -> None:
    expected = Exactly([[Output(b"a", b"1", 5)]])
    assert list(expected.problems([[Output(b"a", b"1", 5)]])) == []
    assert "expected b'a': b'1' at 5" in next(expected.problems([[Output(b"a", b"1", 6)]]))


def test_a_partition_too_few_or_too_many() -> None:
    assert problems(Exactly([out("a1"), out("b1")]), "a1")
    assert problems(Exactly([out("a1")]), "a1", "b1")
    assert problems(Interleaved([[out("a1")], [out("b1")]]), "a1")
    assert problems(Interleaved([[out("a1")]]), "a1", "b1")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("a1 b1 a2", None),
        ("b1 a1 a2", None),
        ("a2 b1 a1", "key b'a', record 0"),
        ("a1 a2", "key b'b', 1 of 1 records are missing"),
        ("a1 b1 a2 a2", "key b'a', 1 records are extra"),
        ("a1 b1 a2 c1", "key b'c', 1 records are extra"),
    ],
)
def test_per_key(found: str, says: str | None) -> None:
    expectation = PerKey({b"a": out("a1 a2"), b"b": out("b1")})
    result = problems(expectation, found)
    assert result == [] if says is None else says in result[0]


def test_per_key_knows_where_a_key_belongs() -> None:
    expectation = PerKey({b"a": out("a1")})
    assert not (problems(expectation, "a1", "") and problems(expectation, "", "a1"))
    assert "its key belongs to" in (problems(expectation, "a1", "") + problems(expectation, "", "a1"))[0]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("a1 a2 a3", None),
        ("a3", None),
        ("a1 a3", None),
        ("a1 a2", "ends with b'a': b'2', expected b'a': b'3'"),
        ("", "ends with nothing"),
        ("a2 a1 a3", "extra or out of order"),
        ("a3 a3", "extra or out of order"),
        ("a3 b1", "extra or out of order"),
    ],
)
def test_newest_of(found: str, says: str | None) -> None:
    result = problems(NewestOf({b"a": out("a1 a2 a3")}), found)
    assert result == [] if says is None else says in result[0]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("a1 a2 b1 b2", None),
        ("b1 a1 b2 a2", None),
        ("a1 b1 a2", "1 of 4 records are missing, such as b'b': b'2'"),
        ("a2 a1 b1 b2", "record 0: found b'a': b'2', expected b'a': b'1' or b'b': b'1'"),
        ("a1 a2 b1 b2 b2", "record 4: found b'b': b'2', expected nothing more"),
    ],
)
def test_interleaved(found: str, says: str | None) -> None:
    result = problems(Interleaved([[out("a1 a2"), out("b1 b2")]]), found)
    assert result == [] if says is None else says in result[0]


def test_interleaved_follows_equal_records_every_way() -> None:
    """Taking the first record from the first sequence would end nowhere."""
    assert problems(Interleaved([[out("x1 a1"), out("x1 b1")]]), "x1 b1 x1 a1") == []


def test_a_rule_of_ones_own_is_asked_for_every_key() -> None:
    asked = []

    def rule(key: bytes | None, records: object) -> object:
        asked.append(key)
        return iter(())

    assert problems(PerKeyRule([b"a", b"b"], rule), "b1 c1") == []  # type: ignore[arg-type]
    assert asked == [b"a", b"b", b"c"]


# -- disks -------------------------------------------------------------------------------------------------


def contents(backend: SimulatedBackend) -> dict[bytes, bytes]:
    return dict(backend.scan("s", None, None, False))


def test_a_disk_loses_whole_writes_newest_first() -> None:
    clock = ManualClock()
    backend = SimulatedBackend(["s"], clock.monotonic_ms, lambda call, phase: None)
    backend.note({"topic_id:s": "x"})
    backend.apply({"s": {b"a": b"1", b"b": b"1"}}, {"s": 3}, {("in", 0): 1})
    clock.advance(100)
    backend.apply({"s": {b"a": None, b"c": b"2"}}, {"s": 6}, {("in", 0): 2})
    backend.restore("s", {b"d": b"3"}, 9)
    backend.apply({"s": {b"e": b"4"}}, {"s": 12}, {("in", 0): 3}, {"s": b"c"})
    assert contents(backend) == {b"c": b"2", b"d": b"3", b"e": b"4"}
    backend.take_back(1)
    assert contents(backend) == {b"b": b"1", b"c": b"2", b"d": b"3"}
    assert (backend.positions(), backend.offsets()) == ({"s": 9}, {("in", 0): 2})
    backend.take_back_to(50)
    assert contents(backend) == {b"a": b"1", b"b": b"1"}
    assert (backend.positions(), backend.facts()) == ({"s": 3}, {"topic_id:s": "x"})
    backend.clear("s")
    assert contents(backend) == {}
    backend.take_back(1)
    assert (contents(backend), backend.positions()) == ({b"a": b"1", b"b": b"1"}, {"s": 3})
    backend.take_back(100)
    assert (contents(backend), backend.positions(), backend.facts()) == ({}, {}, {})


@pytest.mark.parametrize("entries", [False, True])
def test_a_crash_takes_what_was_restored_and_not_kept(entries: bool) -> None:
    backend = SimulatedBackend(["s", "t"], ManualClock().monotonic_ms, lambda call, phase: None)
    backend.restore("s", {b"a": b"1"}, 1)
    backend.restore("s", {b"a": None, b"b": b"1"}, 3)
    backend.lose_restored(entries)
    assert (contents(backend), backend.positions()) == ({} if entries else {b"b": b"1"}, {})
    backend.restore("s", {b"a": b"1"}, 1)
    backend.apply({"s": {b"c": b"1"}}, {"s": 5}, {("in", 0): 1})
    backend.restore("s", {b"c": b"2"}, 6)
    backend.lose_restored(entries)
    assert contents(backend)[b"c"] == (b"1" if entries else b"2")
    assert (backend.positions(), backend.offsets()) == ({"s": 5}, {("in", 0): 1})
    backend.restore("s", {b"c": b"2"}, 6)
    backend.close()
    backend.lose_restored(entries)
    assert (contents(backend)[b"c"], backend.positions()) == (b"2", {"s": 6})


@pytest.mark.parametrize(("leaves", "values"), [("kept", 3), ("torn", 2), ("older", 1), ("lost", 0)])
def test_what_a_crash_leaves(leaves: str, values: int) -> None:
    clock = ManualClock()
    seen: list[tuple[str, str]] = []
    disk = SimulatedDisk(clock.monotonic_ms, lambda call, phase: seen.append((call, phase)))
    backend = disk.open(TaskId("in", 0), ["s"], fresh=False)
    for number in range(3):
        backend.apply({"s": {b"%d" % number: b"x"}}, {}, {})
        clock.advance(100)
    disk.crashed(leaves, 50)
    again = disk.open(TaskId("in", 0), ["s"], fresh=False)
    assert len(list(again.scan("s", None, None, False))) == values
    assert seen[:2] == [("disk.open", "before"), ("disk.open", "after")]
    assert seen.count(("disk.apply", "before")) == 3


# -- faults ------------------------------------------------------------------------------------------------


def test_a_list_of_faults_is_the_same_from_a_file() -> None:
    faults = Campaign(None, chosen_kinds(None)).faults(12)
    assert faults_from_json(faults_to_json(faults)) == faults
    assert [fault.number for fault in faults] == list(range(len(faults)))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"kind": "pause"}]'])
def test_a_file_that_is_no_list_of_faults(text: str) -> None:
    with pytest.raises(ConfigError, match="no list of faults"):
        faults_from_json(text)


def test_kinds_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"no fault 'earthquake'; there are crash, "):
        chosen_kinds(["crash", "earthquake"])
    with pytest.raises(ConfigError, match="earthquake"):
        faults_from_json('[{"number": 0, "kind": "earthquake", "at_ms": 0, "call": "*"}]')


def test_leaving_out_a_fault_leaves_the_others_where_they_are() -> None:
    campaign = Campaign(None, ("slow",))
    seed = next(seed for seed in range(100) if len(campaign.run(seed).fired) > 3)
    first = campaign.run(seed).fired[0]
    assert first in campaign.run(seed, [first[0]]).fired


def test_shrinking_keeps_what_is_needed() -> None:
    faults = [Fault(number, "pause", 0, "consumer.poll") for number in range(12)]
    runs = []

    def fails(some: object) -> bool:
        assert isinstance(some, (list, tuple))
        runs.append(len(some))
        return {1, 7, 11} <= {fault.number for fault in some}

    assert [fault.number for fault in shrink(faults, fails)] == [1, 7, 11]
    assert len(runs) < 60
    assert shrink(faults, lambda some: True) == ()


# -- the page ----------------------------------------------------------------------------------------------


def test_the_page_names_every_fault_and_every_built_in_topology() -> None:
    text = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
    tables = [re.findall(r"^\| `([a-z-]+)` \|", part, re.MULTILINE) for part in text.split("\n## ")]
    assert list(KINDS) in tables
    cells = [
        re.findall(r"^\| (`[a-z`, -]+) \|", part, re.MULTILINE)
        for part in text.split("\n## ")[0].split("These run only")
    ]
    chosen, named = ([name for cell in part for name in re.findall(r"`([^`]+)`", cell)] for part in cells)
    assert chosen == list(WORKLOADS)
    assert sorted(named) == sorted(set(workload_names()) - set(WORKLOADS))


def test_a_workload_can_be_imported_before_the_simulation() -> None:
    code = "import streamstate.operators.windows.workload as one; assert one.WORKLOADS"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
