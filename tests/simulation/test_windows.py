"""Windows under faults, half of the runs with commits that go on beside the loop: what is kept in segments has a sealed
layer too, expires in the transaction whose records made it expire, and comes back when that one fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamstate.engine.task.task import Task
from streamstate.state.staging import StagedStore
from streamstate.state.window_index import WindowIndex
from streamstate.testing.simulation import Campaign, find_workload
from streamstate.windows.keys import TIME_KEY
from tests.simulation.seeds import first_wrong, seeds_are_right

SEEDS = 40
MOST_SEEDS = 200

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("workload", ["spells", "near", "pairs"])
def test_seeds(workload: str) -> None:
    seeds_are_right(workload, SEEDS)


@pytest.mark.parametrize("workload", ["spells", "near", "pairs"])
def test_without_faults_everything_happens(workload: str) -> None:
    campaign = Campaign(find_workload(workload), ())
    records = 0
    for seed in range(10):
        result = campaign.run(seed)
        assert result.ok, result.problems
        records += result.records
    assert records > 200


# -- the simulation notices when a safeguard of these is missing -------------------------------------------------


def drop_what_has_expired_before_the_commit(patch: Patch) -> None:
    seal = Task.seal

    def sealed_and_dropped(self: Task) -> Any:
        writes = seal(self)
        assert self.backend is not None
        bounds = {n: s.segments.bound for n, s in self.stores.items() if s.segments is not None and s.segments.bound}
        self.backend.apply({}, {}, {}, bounds)
        return writes

    patch.setattr(Task, "seal", sealed_and_dropped)


def drop_only_the_upper_layer_in_a_roll_back(patch: Patch) -> None:
    """What was sealed for the commit that failed stays where reads find it."""
    reset, run = Task.reset, Task.run
    kept: dict[int, dict[str, dict[bytes, Any]]] = {}

    def forgetful(self: Task) -> None:
        kept[id(self)] = {name: dict(store._sealed) for name, store in self.stores.items()}
        reset(self)

    def resumed(self: Task) -> None:
        run(self)
        for name, sealed in kept.pop(id(self), {}).items():
            self.stores[name]._young.update(sealed)

    patch.setattr(Task, "reset", forgetful)
    patch.setattr(Task, "run", resumed)


def keep_the_time_of_what_was_rolled_back(patch: Patch) -> None:
    reset, run = Task.reset, Task.run
    kept: dict[int, dict[str, int]] = {}

    def forgetful(self: Task) -> None:
        kept[id(self)] = {n: s.segments.clock[TIME_KEY] for n, s in self.stores.items() if s.segments is not None}
        reset(self)

    def resumed(self: Task) -> None:
        run(self)
        for name, time_ms in kept.pop(id(self), {}).items():
            segments = self.stores[name].segments
            assert segments is not None
            segments.clock[TIME_KEY] = max(time_ms, segments.clock[TIME_KEY])

    patch.setattr(Task, "reset", forgetful)
    patch.setattr(Task, "run", resumed)


def leave_no_tombstone_for_what_was_sealed(patch: Patch) -> None:
    """What the commit under way creates counts as never committed."""
    seal = WindowIndex.seal

    def forgetful(self: WindowIndex, writes: Any) -> None:
        fresh = set(self._fresh)
        seal(self, writes)
        self._fresh.update(fresh)

    patch.setattr(WindowIndex, "seal", forgetful)


def forget_buckets_that_nothing_else_has(patch: Patch) -> None:
    """... to save memory, while what is in them is staged only."""
    drop = WindowIndex._drop_read

    def drop_all(self: WindowIndex) -> None:
        self._touched.clear()
        drop(self)

    patch.setattr(WindowIndex, "_drop_read", drop_all)


def take_what_was_forgotten_for_new(patch: Patch) -> None:
    """Entries that left the cache are not looked for in the backend."""
    age = StagedStore._age

    def aged(self: StagedStore) -> None:
        known_from = self._known_from
        age(self)
        self._known_from = known_from

    patch.setattr(StagedStore, "_age", aged)


@pytest.mark.parametrize(
    ("workload", "weakening"),
    [
        ("spells", drop_what_has_expired_before_the_commit),
        ("spells", drop_only_the_upper_layer_in_a_roll_back),
        ("spells", keep_the_time_of_what_was_rolled_back),
        ("spells", leave_no_tombstone_for_what_was_sealed),
        ("pairs", forget_buckets_that_nothing_else_has),
        ("windows", take_what_was_forgotten_for_new),
    ],
    ids=lambda item: getattr(item, "__name__", item),
)
def test_a_missing_safeguard_is_noticed(
    workload: str,
    weakening: Callable[[Patch], None],
    monkeypatch: Patch,
    record_property: Callable[[str, object], None],
) -> None:
    weakening(monkeypatch)
    wrong = first_wrong(workload, MOST_SEEDS)
    assert wrong is not None, f"{MOST_SEEDS} seeds did not notice that the engine would {weakening.__name__}"
    record_property("seeds", wrong.seed + 1)
    print(f"{weakening.__name__}: found in seed {wrong.seed}: {wrong.problems[0]}")
