"""A local copy that is older than the changelog's tombstones is not used."""

from __future__ import annotations

import time

from streamstate.engine.task import TaskId
from streamstate.rocksdb import StateDirectory, directory

TASK = TaskId("counts", 0)
DAY_S = 24 * 60 * 60


def reopened(tmp_path, monkeypatch, days: float) -> list[tuple[bytes, bytes]]:
    place = StateDirectory(tmp_path, "app")
    backend = place.open_task(TASK, ["s"], False)
    backend.apply({"s": {b"k": b"v"}}, {"s": 5}, {})
    backend.close()
    later = time.time() + days * DAY_S
    monkeypatch.setattr(directory.time, "time", lambda: later)
    backend = place.open_task(TASK, ["s"], False)
    found = list(backend.scan("s", None, None, False))
    assert bool(backend.positions()) is bool(found), "entries and position go together"
    backend.close()
    place.close()
    return found


def test_a_copy_of_five_days_is_used(tmp_path, monkeypatch):
    assert reopened(tmp_path, monkeypatch, 5) == [(b"k", b"v")]


def test_a_copy_of_seven_days_is_replayed_from_the_start(tmp_path, monkeypatch):
    assert reopened(tmp_path, monkeypatch, 7) == []


def test_a_replay_is_as_old_as_its_beginning(tmp_path):
    place = StateDirectory(tmp_path, "app")
    backend = place.open_task(TASK, ["s"], False)
    assert backend.current_s is None
    backend.restore("s", {b"k": b"v"}, 1)
    began = backend.current_s
    backend.restore("s", {b"l": b"v"}, 2)
    assert backend.current_s == began
    backend.close()
    backend = place.open_task(TASK, ["s"], False)
    assert backend.current_s == int(began)
    backend.apply({}, {}, {("in", 0): 1})
    assert backend.current_s >= began
    backend.close()
    place.close()
