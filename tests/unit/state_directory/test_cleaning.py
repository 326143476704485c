"""State of tasks that live elsewhere is deleted after a while."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from streamstate.rocksdb import directory as module
from streamstate.rocksdb.directory import StateDirectory
from tests.unit.state_directory.support import Places, copies, read, write

# -- state of tasks that live elsewhere ------------------------------------------------------------------------

DELAY_S = 600.0


def used(places: Places, ago_s: float) -> None:
    """As if all copies had last been used so long ago."""
    for lock in places.root.glob("app/*/tasks/*/lock"):
        at = time.time() - ago_s
        os.utime(lock, (at, at))


def started(place: StateDirectory, ago_s: float) -> None:
    place._since_s = time.time() - ago_s


def test_state_that_nobody_has_held_for_a_while_is_deleted(places: Places) -> None:
    place = places.take()
    write(place, b"1")
    started(place, 2 * DELAY_S)
    used(places, DELAY_S - 60)
    assert place.clean(DELAY_S) == []
    used(places, DELAY_S + 60)
    assert place.clean(DELAY_S) == [place.path / "tasks" / "lines_0"]
    assert copies(places) == []
    # It may come back, and starts empty.
    assert read(place) is None


def test_state_of_a_process_that_is_gone_is_deleted_by_any_other(places: Places) -> None:
    first, second = places.take(), places.take()
    write(first, b"1")
    places.leave(first)
    started(second, 2 * DELAY_S)
    used(places, 2 * DELAY_S)
    second.clean(DELAY_S)
    assert copies(places) == []
    assert (first.path / "process.json").exists(), "the place keeps its id"


def test_after_a_night_off_nothing_is_deleted_before_tasks_are_assigned(places: Places) -> None:
    place = places.take()
    write(place, b"1")
    used(places, 100 * DELAY_S)
    started(place, DELAY_S - 60)
    assert place.clean(DELAY_S) == []
    assert read(place) == b"1"


def test_state_that_a_live_process_holds_is_never_deleted(places: Places) -> None:
    first, second = places.take(), places.take()
    held = write(first, b"1", keep_open=True)
    for place in (first, second):
        started(place, 100 * DELAY_S)
        used(places, 100 * DELAY_S)
        assert place.clean(DELAY_S) == []
    assert held.reader("counts")(b"k") == b"1"
    held.close()


def test_what_a_killed_process_was_deleting_is_deleted(places: Places) -> None:
    place = places.take()
    write(place, b"1")
    (place.path / "tasks" / "lines_0").rename(place.path / "tasks" / ".deleted-lines_0-ab")
    place.clean(DELAY_S)
    assert list((place.path / "tasks").iterdir()) == []


def test_a_task_that_comes_back_while_its_state_is_deleted_gets_a_directory_of_its_own(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places.take(), places.take()
    write(first, b"1")
    started(second, 2 * DELAY_S)
    used(places, 2 * DELAY_S)
    rmtree, came_back = module.shutil.rmtree, []

    def meanwhile(path: Path, **options: object) -> None:
        if not came_back:
            came_back.append(write(first, b"2", keep_open=True))
        rmtree(path, ignore_errors=True)

    monkeypatch.setattr(module.shutil, "rmtree", meanwhile)
    second.clean(DELAY_S)
    [backend] = came_back
    assert backend.reader("counts")(b"k") == b"2"
    backend.close()
    monkeypatch.undo()
    assert read(first) == b"2"
