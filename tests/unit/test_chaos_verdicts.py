"""What chaos and the memory soak hold against a run can fail: restores, and memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import run
from tests.chaos.outcome import Outcome
from tests.chaos.processes import Restored
from tests.chaos.run import Phase
from tests.chaos.soak_memory import MIB, Bound, Result, keys

MACHINE = Path("machine-0")
TASK = "totals-repartition_3"
COMMITTED = 5


def restores(monkeypatch: pytest.MonkeyPatch, *done: Restored, stored: int | None) -> tuple[Outcome, list[str]]:
    """What is said of stores that were restored after a kill that left ``stored`` on the machine's disk."""
    asked: list[Any] = []

    def committed(cluster: Any, topic: str, partition: int, start: int, end: int) -> int:
        asked.append((topic, partition, start, end))
        return COMMITTED

    monkeypatch.setattr(run, "committed_between", committed)
    phase = Phase.__new__(Phase)
    worker = SimpleNamespace(name="worker 2", number=2, machine=MACHINE, restored=list(done))
    phase.fleet = SimpleNamespace(application_id="app", workers=[worker])  # type: ignore[assignment]
    phase.cluster = None  # type: ignore[assignment]
    phase.violations = []
    outcome = Outcome("kill", ("kill",), 0.0)
    scene = run._Scene(outcome, 0.0)
    if stored is not None:
        scene.positions[MACHINE, TASK] = stored
    phase._restores(scene)
    assert asked[0] == ("app-totals-changelog", 3, done[0].start if stored is None else stored, done[0].end)
    return outcome, phase.violations


def done(records: int, start: int, at: float = 1.0) -> Restored:
    return Restored(TASK, "totals", records, start, 120, at)


def test_a_restore_of_what_was_committed_since_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, violations = restores(monkeypatch, done(COMMITTED, 110), stored=110)
    assert violations == []
    assert [(r.records, r.needed, r.kept) for r in outcome.restores] == [(COMMITTED, COMMITTED, True)]


def test_a_restore_of_more_than_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    violations = restores(monkeypatch, done(COMMITTED + 1, 110), stored=110)[1]
    assert len(violations) == 1
    assert "restored 6 records" in violations[0]
    assert "reflected 110" in violations[0]


def test_a_restore_from_before_the_stored_position_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(restores(monkeypatch, done(3, 90), stored=110)[1]) == 1


def test_only_the_first_restore_is_on_the_killed_process_state(monkeypatch: pytest.MonkeyPatch) -> None:
    later = done(40, 0, at=2.0)
    outcome, violations = restores(monkeypatch, done(2, 110), later, stored=110)
    assert [restore.kept for restore in outcome.restores] == [True, False]
    assert violations == []


def test_without_state_everything_may_be_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, violations = restores(monkeypatch, done(90, 0), stored=None)
    assert violations == []
    assert [(r.records, r.needed, r.kept) for r in outcome.restores] == [(90, 90, False)]


def result(**changed: Any) -> Result:
    bound = Bound(budget=512, start=50, consumer_queue=64, producer_queue=256, sealed=32)
    numbers: dict[str, Any] = {
        "keys": 10, "records": 11, "seconds": 1.0, "commits": 1, "bound": bound, "peak": 700.0, "keyed": 500.0,
        "early": 600.0,
        "late": 620.0, "state_mib": 1.0, "wrong": 0,
    }  # fmt: skip
    return Result(**{**numbers, **changed})


def test_memory_within_its_bound_is_right() -> None:
    assert result().violations == []
    assert result().bound.total == 512 + 50 + 64 + 256 + 32 + (512 + 64 + 256 + 32) / 8


@pytest.mark.parametrize("changed", [{"peak": 1_100.0}, {"late": 670.0}, {"wrong": 1}])
def test_memory_that_grows_or_outputs_that_are_wrong_are_not(changed: dict[str, Any]) -> None:
    assert len(result(**changed).violations) == 1


def test_each_key_comes_once_then_some_again() -> None:
    found = list(keys(5_000, 500, 1))
    assert len(found) == 5_500
    assert len(set(found)) == len(set(found[:5_000])) == 5_000
    assert found[:5_000] != sorted(found[:5_000])
    assert MIB == 2**20
