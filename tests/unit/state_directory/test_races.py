"""Processes that look for the same directory at the same time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from streamstate.engine.ports import Retriable
from streamstate.rocksdb import directory as module
from streamstate.rocksdb.directory import try_lock
from tests.unit.state_directory.support import OTHER_PROCESS, STORES, TASK, Places, copies, read, write

# -- races -----------------------------------------------------------------------------------------------------


def test_a_directory_moved_between_finding_and_locking_is_not_taken(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places.take(), places.take()
    write(first, b"1")
    flock = module.fcntl.flock
    moved = places.root / "elsewhere"

    def late(lock: int, operation: int) -> None:
        if not moved.exists():
            (first.path / "tasks" / str(TASK)).rename(moved)
        flock(lock, operation)

    monkeypatch.setattr(module.fcntl, "flock", late)
    assert read(second) is None
    assert copies(places) == ["app/process-1/tasks/lines_0"]


def test_a_directory_made_anew_between_finding_and_locking_is_not_taken(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the lock is one on a file that is no longer there."""
    path = places.root / "d"
    os.close(try_lock(path) or -1)
    flock = module.fcntl.flock

    def late(lock: int, operation: int) -> None:
        (path / "lock").unlink()
        (path / "lock").touch()
        flock(lock, operation)

    monkeypatch.setattr(module.fcntl, "flock", late)
    assert try_lock(path) is None


def test_two_live_processes(places: Places) -> None:
    """The same with a real other process, and after it was killed."""
    command = [sys.executable, "-c", OTHER_PROCESS, str(places.root), ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            its_id = other.stdout.readline().strip()
            place = places.take()
            assert place.path.name == "process-1"
            assert place.process_id != its_id
            with pytest.raises(Retriable, match="process-0"):
                place.open_task(TASK, STORES, False)
        finally:
            other.kill()
    # A killed process holds no lock, and what it applied is there.
    assert read(place) == b"other"
    assert places.take().process_id == its_id
