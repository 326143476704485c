"""A task finds its state, and takes it along when it moves."""

from __future__ import annotations

import os

import pytest

from streamstate.engine.ports import Retriable
from streamstate.engine.task.task import TaskId
from streamstate.errors import TaskCorrupted
from streamstate.rocksdb import directory as module
from tests.unit.state_directory.support import STORES, TASK, Places, copies, read, write

# -- tasks -----------------------------------------------------------------------------------------------------


def test_a_task_finds_its_state_again(places: Places) -> None:
    place = places.take()
    write(place, b"1")
    assert read(place) == b"1"
    assert copies(places) == ["app/process-0/tasks/lines_0"]


def test_a_task_takes_its_directory_to_the_process_it_moves_to(places: Places) -> None:
    first, second = places.take(), places.take()
    write(first, b"1")
    assert read(second) == b"1"
    assert copies(places) == ["app/process-1/tasks/lines_0"]
    assert read(first) == b"1"
    assert copies(places) == ["app/process-0/tasks/lines_0"]


def test_it_takes_over_from_a_process_that_died(places: Places) -> None:
    first, second = places.take(), places.take()
    write(first, b"1")
    places.leave(first)
    assert read(second) == b"1"


def test_only_the_task_itself_moves(places: Places) -> None:
    first, second = places.take(), places.take()
    write(first, b"1")
    other = first.open_task(TaskId("lines", 1), STORES, False)
    other.close()
    longer = first.open_task(TaskId("more-lines", 0), STORES, False)
    longer.close()
    assert read(second) == b"1"
    assert copies(places) == [
        "app/process-0/tasks/lines_1",
        "app/process-0/tasks/more-lines_0",
        "app/process-1/tasks/lines_0",
    ]


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_the_newest_copy_wins_and_stale_ones_of_our_own_go(places: Places, newest: int) -> None:
    """Copies arise when a process went on fresh while another still held the directory."""
    three = [places.take() for _ in range(3)]
    backends = []
    for number, place in enumerate(three):
        backend = place.open_task(TASK, STORES, fresh=True)
        backend.apply({"counts": {b"k": b"%d" % number}}, {"counts": 1}, {})
        backends.append(backend)
    assert len(copies(places)) == 3
    for backend in backends:
        backend.close()
    for number, place in enumerate(three):
        changed = 2_000_000_000 if number == newest else 1_000_000_000 + number
        os.utime(place.path / "tasks" / str(TASK) / module.WRITTEN, (changed, changed))
    assert read(three[0]) == b"%d" % newest


def test_the_copy_that_was_changed_last_wins_over_one_released_later(places: Places) -> None:
    """Found by chaos: a stopped process let go of its older copy after a killed one had last opened its own, and what
    the killed one had applied was restored once more."""
    stopped, successor = places.take(), places.take()
    older = write(stopped, b"older", keep_open=True)
    newer = successor.open_task(TASK, STORES, fresh=True)
    killed = successor.path / "tasks" / str(TASK)
    opened_s = (killed / "lock").stat().st_mtime
    newer.apply({"counts": {b"k": b"newer"}}, {"counts": 2}, {})
    newer.close()
    older.close()
    # A killed process leaves its lock as it was when it opened the copy.
    os.utime(killed / "lock", (opened_s, opened_s))
    assert read(places.take()) == b"newer"


@pytest.mark.parametrize("empty_first", [False, True])
def test_a_copy_that_nothing_was_written_to_never_wins(places: Places, empty_first: bool) -> None:
    empty, full = (places.take() for _ in range(2)) if empty_first else reversed([places.take() for _ in range(2)])
    held = write(full, b"1", keep_open=True)
    empty.open_task(TASK, STORES, fresh=True).close()
    held.close()
    assert read(places.take()) == b"1"


def test_a_directory_held_by_a_live_process_is_waited_for_then_left(places: Places) -> None:
    first, second = places.take(), places.take()
    held = write(first, b"1", keep_open=True)
    with pytest.raises(Retriable, match=r"process-0.*still held"):
        second.open_task(TASK, STORES, False)
    # Still waiting has changed nothing.
    assert copies(places) == ["app/process-0/tasks/lines_0"]
    own = second.open_task(TASK, STORES, True)
    assert own.reader("counts")(b"k") is None
    own.close()
    held.apply({"counts": {b"k": b"2"}}, {}, {})
    held.close()
    assert read(second) == b"2", "it was changed last"


def test_going_on_fresh_keeps_what_is_our_own(places: Places) -> None:
    first, second = places.take(), places.take()
    held = first.open_task(TASK, STORES, True)
    mine = second.open_task(TASK, STORES, True)
    mine.apply({"counts": {b"k": b"mine"}}, {"counts": 3}, {})
    mine.close()
    with pytest.raises(Retriable):
        second.open_task(TASK, STORES, False)
    assert read(second, fresh=True) == b"mine"
    held.close()


def test_a_task_cannot_be_opened_twice_in_one_process(places: Places) -> None:
    place = places.take()
    held = write(place, b"1", keep_open=True)
    for fresh in (False, True):
        with pytest.raises(Retriable, match="still held"):
            place.open_task(TASK, STORES, fresh)
    held.close()
    assert read(place) == b"1"


def test_a_state_that_cannot_be_opened_is_unlocked(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    place = places.take()
    write(place, b"1")

    def refuse(*arguments: object) -> None:
        raise TaskCorrupted("newer format")

    with monkeypatch.context() as patch:
        patch.setattr(module, "RocksBackend", refuse)
        with pytest.raises(TaskCorrupted):
            place.open_task(TASK, STORES, False)
    assert read(place) == b"1"
