"""What processors keep, under faults: entries that expire, and stores of the other kinds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamstate.state.expiring import ENTRY, KEY_AT, ExpiringStore
from streamstate.state.list_store import ListStore
from streamstate.state.staging import StagedStore
from streamstate.state.timer_store import Timers
from streamstate.state.window_index import WindowIndex
from tests.simulation.seeds import first_wrong, seeds_are_right

SEEDS = 60


@pytest.mark.parametrize("workload", ["recent", "reminders", "visits"])
def test_seeds(workload: str) -> None:
    seeds_are_right(workload, SEEDS)


# -- the simulation notices when a safeguard of these is missing -------------------------------------------------


def expired_entries_until_they_are_swept(patch: pytest.MonkeyPatch) -> None:
    """What has expired is shown for as long as it is there."""
    original = ExpiringStore.get

    def get(self: ExpiringStore, key: bytes) -> object:
        stream_time, self._stream_time = self._stream_time, lambda: -1
        try:
            return original(self, key)
        finally:
            self._stream_time = stream_time

    patch.setattr(ExpiringStore, "get", get)


def sweeping_what_still_lives(patch: pytest.MonkeyPatch) -> None:
    """Entries go a second early, and are not looked up before."""
    original = ExpiringStore._live_from

    def take_away(self: ExpiringStore, at: bytes) -> None:
        self.staged[at] = self.staged[ENTRY + at[KEY_AT:]] = None

    patch.setattr(ExpiringStore, "_live_from", lambda self: original(self) + 1_000)
    patch.setattr(ExpiringStore, "_take_away", take_away)


def entries_that_move_and_stay(patch: pytest.MonkeyPatch) -> None:
    """An entry that is written again is swept when its first write expires."""
    original = ExpiringStore._stage

    def stage(self: ExpiringStore, at: bytes, stored: bytes | None) -> None:
        if stored is not None or at[:1] != b"\x00":
            original(self, at, stored)

    patch.setattr(ExpiringStore, "_stage", stage)


def timers_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    """A task that starts does not look for timers in its store."""
    original = Timers.__init__

    def init(self: Timers, staging: StagedStore) -> None:
        original(self, staging)
        self._complete_before = None

    patch.setattr(Timers, "__init__", init)


def timers_that_were_cancelled(patch: pytest.MonkeyPatch) -> None:
    original = Timers.cancel
    patch.setattr(Timers, "cancel", lambda self, key: self.get(key) is not None or original(self, key))


def bounds_that_stay(patch: pytest.MonkeyPatch) -> None:
    """A list keeps its bounds for as long as its process runs, whatever becomes of what is uncommitted."""
    original, write = ListStore._bounds, ListStore._set_bounds
    known: dict[tuple[str, bytes], tuple[int, int]] = {}

    def bounds(self: ListStore, key: bytes) -> tuple[int, int]:
        return known.get((self._spec.name, key)) or original(self, key)

    def set_bounds(self: ListStore, key: bytes, first: int, end: int) -> None:
        known[self._spec.name, key] = first, end
        write(self, key, first, end)

    patch.setattr(ListStore, "_bounds", bounds)
    patch.setattr(ListStore, "_set_bounds", set_bounds)


def retention_that_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What was too old to be taken is taken after a restart."""
    original = WindowIndex.load
    patch.setattr(WindowIndex, "load", lambda self, stored, newest: original(self, None, newest))


@pytest.mark.parametrize(
    ("workload", "weakening"),
    [
        ("recent", expired_entries_until_they_are_swept),
        ("recent", sweeping_what_still_lives),
        ("recent", entries_that_move_and_stay),
        ("reminders", timers_in_memory_only),
        ("reminders", timers_that_were_cancelled),
        ("reminders", bounds_that_stay),
        ("visits", retention_that_is_forgotten),
    ],
    ids=lambda item: getattr(item, "__name__", item),
)
def test_a_missing_safeguard_is_noticed(
    workload: str, weakening: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    weakening(monkeypatch)
    assert first_wrong(workload, 100) is not None, "100 seeds did not notice it"
