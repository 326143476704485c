"""New versions of a topology over state that stays, in a rolling update under faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from streamstate.aggregates import Aggregate
from streamstate.aggregates import named as folds
from streamstate.engine.task import store_layout as sealing
from streamstate.engine.task import store_marks
from streamstate.engine.task.store_layout import StoreLayoutCheck
from streamstate.serde import Serde
from streamstate.state.spec import Aggregates, SegmentSpec, StoreSpec
from streamstate.testing.simulation import find_workload
from streamstate.testing.simulation.library.versions import VERSION_MAKERS
from tests.simulation.seeds import first_wrong, seeds_are_right

SEEDS = 60


@pytest.mark.parametrize("workload", VERSION_MAKERS)
def test_seeds(workload: str) -> None:
    seeds_are_right(workload, SEEDS)


# -- the simulation notices when a safeguard of these is missing -------------------------------------------------


def segments_of_the_length_that_the_topology_says(patch: pytest.MonkeyPatch) -> None:
    original = store_marks._segments

    def forgetful(segments: SegmentSpec, stored: Any, seen_ms: int) -> SegmentSpec:
        return replace(original(segments, stored, seen_ms), length_ms=segments.length_ms)

    patch.setattr(store_marks, "_segments", forgetful)


def aggregates_by_their_place(patch: pytest.MonkeyPatch) -> None:
    """The states of an entry are those of the aggregates of now, in their order."""

    def by_place(named: Mapping[str, Aggregate], plain: Serde[Any], sets: tuple[Aggregates, ...]) -> Serde[Any]:
        initials = [named[name].initial for name, _ in sets[-1]]

        def decode(data: bytes) -> Any:
            states = plain.deserialize(data)
            return [*states, *initials[len(states) :]][: len(initials)]

        return Serde(plain.name, plain.serialize, decode, immutable=plain.immutable)

    patch.setattr(folds, "_states_of", by_place)


def entries_of_the_newest_set_whatever_they_say(patch: pytest.MonkeyPatch) -> None:
    """A mark remembers no set but the newest, so that numbers of entries mean nothing."""
    original = sealing.reconcile

    def reconcile(spec: StoreSpec, stored: Any, seen_ms: int) -> Any:
        return original(spec, replace(stored, aggregates=(spec.aggregates,) if stored.aggregates else ()), seen_ms)

    patch.setattr(sealing, "reconcile", reconcile)


def marks_that_are_written_when_the_state_is_opened(patch: pytest.MonkeyPatch) -> None:
    """The mark is on the disk before the commit whose entries it explains."""
    original = StoreLayoutCheck.adopt

    def adopt(self: StoreLayoutCheck, specs: Any, stores: Any, backend: Any) -> Any:
        found = original(self, specs, stores, backend)
        backend.note({store_marks.mark_fact(name): text.decode() for name, text in self._pending.items()})
        return found

    patch.setattr(StoreLayoutCheck, "adopt", adopt)


@pytest.mark.parametrize(
    "weakening",
    [
        segments_of_the_length_that_the_topology_says,
        aggregates_by_their_place,
        entries_of_the_newest_set_whatever_they_say,
        marks_that_are_written_when_the_state_is_opened,
    ],
    ids=lambda item: getattr(item, "__name__", item),
)
def test_a_missing_safeguard_is_noticed(
    weakening: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    weakening(monkeypatch)
    # Anew: a workload's topology has what was patched.
    find_workload.cache_clear()
    try:
        assert first_wrong("updated", 100) is not None, "100 seeds did not notice it"
    finally:
        find_workload.cache_clear()
