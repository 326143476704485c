"""A local copy that is older than the changelog's tombstones is not used."""

from __future__ import annotations

import time

import pytest
from rocksdict import Rdict

from streamstate.engine.task.task import TaskId
from streamstate.rocksdb import Memory, RocksBackend, StateDirectory
from streamstate.state.backend import StateDamaged

TASK = TaskId("counts", 0)
DAY_S = 24 * 60 * 60


@pytest.fixture
def place(tmp_path):
    directory = StateDirectory(tmp_path, "app")
    yield directory
    directory.close()


def reopened(place, monkeypatch, days: float) -> list[tuple[bytes, bytes]]:
    backend = place.open_task(TASK, ["s"], False)
    backend.apply({"s": {b"k": b"v"}}, {"s": 5}, {})
    backend.close()
    later = time.time() + days * DAY_S
    monkeypatch.setattr(time, "time", lambda: later)
    backend = place.open_task(TASK, ["s"], False)
    found = list(backend.scan("s", None, None, False))
    assert bool(backend.positions()) is bool(found), "entries and position go together"
    backend.close()
    return found


def test_a_copy_of_five_days_is_used(place, monkeypatch):
    assert reopened(place, monkeypatch, 5) == [(b"k", b"v")]


def test_a_copy_of_seven_days_is_replayed_from_the_start(place, monkeypatch):
    assert reopened(place, monkeypatch, 7) == []


def test_a_replay_is_as_old_as_its_beginning(place):
    backend = place.open_task(TASK, ["s"], False)
    assert backend.current_s == {}
    backend.restore("s", {b"k": b"v"}, 1)
    began = backend.current_s["s"]
    backend.restore("s", {b"l": b"v"}, 2)
    assert backend.current_s == {"s": began}
    backend.close()
    backend = place.open_task(TASK, ["s"], False)
    assert backend.current_s == {"s": int(began)}
    backend.apply({}, {}, {("in", 0): 1})
    assert backend.current_s["s"] >= began
    backend.close()


class Days:
    """The clock of the directory and of its databases."""

    def __init__(self, monkeypatch) -> None:
        self.now_s = time.time()
        monkeypatch.setattr(time, "time", lambda: self.now_s)

    def pass_by(self, days: float) -> None:
        self.now_s += days * DAY_S


def opened(place: StateDirectory, *stores: str) -> RocksBackend:
    backend = place.open_task(TASK, stores, False)
    assert {store for store in backend.positions() if store in stores} == {
        store for store in stores if list(backend.scan(store, None, None, False))
    }, "entries and position go together"
    return backend


@pytest.mark.parametrize(("away_days", "there"), [(5, True), (7, False)])
def test_a_store_ages_while_it_is_out_of_the_topology(away_days, there, place, monkeypatch):
    days = Days(monkeypatch)
    backend = opened(place, "stays", "leaves")
    backend.apply({"stays": {b"k": b"v"}, "leaves": {b"k": b"v"}}, {"stays": 5, "leaves": 5}, {})
    backend.close()
    days.pass_by(1)
    for day in range(1, away_days):
        backend = opened(place, "stays")
        backend.apply({"stays": {b"k": b"%d" % day}}, {"stays": 5 + day}, {})
        backend.close()
        days.pass_by(1)
    backend = opened(place, "stays", "leaves")
    assert ("leaves" in backend.positions()) is there
    assert list(backend.scan("stays", None, None, False)) == [(b"k", b"%d" % (away_days - 1))]
    backend.close()


def test_a_store_that_is_restored_anew_is_as_new_as_that(place, monkeypatch):
    days = Days(monkeypatch)
    backend = opened(place, "s")
    backend.apply({"s": {b"k": b"old"}}, {"s": 5}, {})
    backend.close()
    days.pass_by(7)
    backend = opened(place, "s")
    backend.restore("s", {b"k": b"new"}, 6, complete=True)
    backend.close()
    days.pass_by(5)
    backend = opened(place, "s")
    assert backend.positions() == {"s": 6}
    backend.close()


def test_a_store_that_was_restored_to_the_end_is_as_new_as_the_restore(place, monkeypatch):
    days = Days(monkeypatch)
    backend = opened(place, "whole", "half")
    backend.restore("whole", {b"k": b"1"}, 1)
    backend.restore("half", {b"k": b"1"}, 1)
    backend.close()
    days.pass_by(4)
    backend = opened(place, "whole", "half")
    began_s = days.now_s
    backend.restore("whole", {b"k": b"2"}, 2)
    backend.restore("half", {b"k": b"2"}, 2)
    days.pass_by(0.5)
    backend.restore("whole", {b"l": b"2"}, 3)
    backend.restore("whole", {}, 4, complete=True)
    assert backend.current_s["whole"] == began_s
    backend.close()
    days.pass_by(3)
    backend = opened(place, "whole", "half")
    assert backend.positions() == {"whole": 4}
    backend.close()


def test_what_is_being_read_is_as_old_as_when_it_was_whole(place, monkeypatch):
    days = Days(monkeypatch)
    backend = opened(place, "rows")
    backend.apply({"rows": {b"k": b"1"}}, {"rows": 0}, {("topic", 0): 1}, current=False)
    began_s = backend.current_s["rows"]
    days.pass_by(1)
    backend.apply({}, {}, {})
    assert backend.current_s["rows"] == began_s + DAY_S
    backend.close()
    days.pass_by(4)
    backend = opened(place, "rows")
    backend.apply({"rows": {b"k": b"2"}}, {"rows": 0}, {("topic", 0): 2}, current=False)
    backend.close()
    days.pass_by(3)
    backend = opened(place, "rows")
    assert backend.positions() == {}, "which says that its offsets count for nothing"
    assert backend.offsets() == {("topic", 0): 2}
    backend.close()


def test_damage_that_shows_when_the_age_is_asked_for_sets_the_state_aside(place, monkeypatch):
    backend = opened(place, "s")
    backend.apply({"s": {b"k": b"v"}}, {"s": 5}, {})
    backend.close()
    meta = RocksBackend._meta
    asked: list[bytes] = []

    def damaged(self, prefix):
        asked.append(prefix)
        if len(asked) == 1:
            raise StateDamaged("the state is damaged", self)
        return meta(self, prefix)

    monkeypatch.setattr(RocksBackend, "_meta", damaged)
    backend = opened(place, "s")
    assert backend.positions() == {}
    assert (place.path / "tasks" / str(TASK) / "db.corrupt").exists()
    backend.close()


def test_a_position_of_unknown_age_is_not_relied_on(place):
    backend = opened(place, "s")
    backend.apply({"s": {b"k": b"v"}}, {"s": 5}, {})
    backend.close()
    path = place.path / "tasks" / str(TASK) / "db"
    options = Memory().options()
    db = Rdict(str(path), options=options, column_families={"store:s": Memory().options()})
    del db[b"current:s"]
    db.close()
    backend = opened(place, "s")
    assert backend.positions() == {}
    backend.close()
