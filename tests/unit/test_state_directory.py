"""The state directory: places of processes, and task directories that move between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamstate.engine.ports import Retriable
from streamstate.engine.task.task import TaskId
from streamstate.errors import StateDirectoryLocked, TaskCorrupted
from streamstate.rocksdb import directory as module
from streamstate.rocksdb.backend import Memory
from streamstate.rocksdb.directory import StateDirectory, try_lock
from streamstate.state.backend import Backend

TASK = TaskId("lines", 0)
STORES = ("counts",)
OTHER_PROCESS = """
import sys
import time
from pathlib import Path
from streamstate.engine import TaskId
from streamstate.rocksdb.directory import StateDirectory

place = StateDirectory(Path(sys.argv[1]), "app", sys.argv[2] or None)
backend = place.open_task(TaskId("lines", 0), ["counts"], False)
backend.apply({"counts": {b"k": b"other"}}, {"counts": 5}, {})
print(place.process_id, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    made = Places(tmp_path)
    yield made
    for place in made.open:
        place.close()


class Places:
    """Processes of this machine, in one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open: list[StateDirectory] = []
        self.memory = Memory(1 << 20, 1 << 20)

    def take(self, instance_id: str | None = None, application_id: str = "app") -> StateDirectory:
        place = StateDirectory(self.root, application_id, instance_id, self.memory)
        self.open.append(place)
        return place

    def leave(self, place: StateDirectory) -> None:
        self.open.remove(place)
        place.close()

    def die(self, place: StateDirectory) -> None:
        """What the operating system does for a process that is killed."""
        self.open.remove(place)
        os.close(place._lock)


def write(place: StateDirectory, value: bytes, *, keep_open: bool = False) -> Backend:
    backend = place.open_task(TASK, STORES, False)
    backend.apply({"counts": {b"k": value}}, {"counts": 1}, {})
    if not keep_open:
        backend.close()
    return backend


def read(place: StateDirectory, *, fresh: bool = False) -> bytes | None:
    backend = place.open_task(TASK, STORES, fresh)
    try:
        return backend.reader("counts")(b"k")
    finally:
        backend.close()


def copies(places: Places) -> list[str]:
    return sorted(str(path.relative_to(places.root)) for path in places.root.glob("app/*/tasks/*"))


# -- places ----------------------------------------------------------------------------------------------------


def test_each_process_has_a_place_and_an_id_of_its_own(places: Places) -> None:
    first, second = places.take(), places.take()
    assert [place.path.name for place in (first, second)] == ["process-0", "process-1"]
    assert first.process_id != second.process_id


def test_a_restarted_process_takes_the_place_and_the_id_of_the_one_that_died(places: Places) -> None:
    first, second = places.take(), places.take()
    places.leave(first)
    third = places.take()
    assert (third.path, third.process_id) == (first.path, first.process_id)
    assert second.process_id != third.process_id


def test_a_new_process_takes_the_place_of_one_that_died_before_any_other(places: Places) -> None:
    """Found by chaos: the first free place was that of a process that had ended in order, and readers of committed
    records waited for the transaction of the one that had died until its time-out."""
    first, second, third, fourth = (places.take() for _ in range(4))
    for taken_s, place in enumerate((first, second, third, fourth)):
        os.utime(place.path / module.IN_USE, (taken_s, taken_s))
    places.leave(first)
    places.die(third)
    places.die(second)
    assert places.take().process_id == third.process_id, "not the one that was started last"
    assert places.take().process_id == second.process_id
    assert places.take().process_id == first.process_id
    assert places.take().path.name == "process-4"
    assert fourth.path.name == "process-3"


def test_a_place_whose_process_ended_in_order_is_none_of_the_dead(places: Places) -> None:
    first, second = places.take(), places.take()
    places.leave(second)
    places.leave(first)
    assert [places.take().process_id for _ in range(2)] == [first.process_id, second.process_id]


def test_a_named_place_of_one_that_died_is_left_to_its_name(places: Places) -> None:
    named = places.take("eu-1")
    places.die(named)
    assert places.take().path.name == "process-0"
    assert places.take("eu-1").process_id == named.process_id


def test_a_named_place_is_its_own(places: Places) -> None:
    named = places.take("eu-1")
    assert named.path.name == "process-eu-1"
    assert places.take().path.name == "process-0"
    with pytest.raises(StateDirectoryLocked, match=r"process-eu-1.*--instance-id"):
        places.take("eu-1")
    places.leave(named)
    assert places.take("eu-1").process_id == named.process_id


def test_a_numbered_process_does_not_take_a_number_somebody_has_by_name(places: Places) -> None:
    named = places.take("0")
    numbered = places.take()
    assert numbered.path != named.path
    assert numbered.process_id != named.process_id


def test_no_place_is_left(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PROCESSES", 2)
    places.take(), places.take()
    with pytest.raises(StateDirectoryLocked, match="all 2 places"):
        places.take()


def test_applications_share_a_state_directory(places: Places) -> None:
    mine, other = places.take(), places.take(application_id="other")
    assert mine.path != other.path
    write(mine, b"mine")
    assert read(other) is None


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"format": 1, "application_id": "other", "process_id": "x"}, "is of application 'other'"),
        ({"format": 2, "application_id": "app", "process_id": "x"}, "format 2"),
    ],
)
def test_a_place_of_another_application_or_format_is_refused(
    places: Places, found: dict[str, object], message: str
) -> None:
    path = places.root / "app" / "process-0"
    path.mkdir(parents=True)
    (path / "process.json").write_text(json.dumps(found))
    with pytest.raises(TaskCorrupted, match=message):
        places.take()
    # It has let go of the place.
    lock = try_lock(path)
    assert lock is not None
    os.close(lock)


@pytest.mark.parametrize("text", ["", "{", '"text"', "[]", '{"format": 1, "application_id": "app"}'])
def test_an_unreadable_identity_is_an_error_with_a_way_out(places: Places, text: str) -> None:
    path = places.root / "app" / "process-0"
    path.mkdir(parents=True)
    (path / "process.json").write_text(text)
    with pytest.raises(TaskCorrupted, match=r"process\.json"):
        places.take()


def test_a_crash_while_the_identity_is_written_leaves_none(places: Places) -> None:
    path = places.root / "app" / "process-0"
    path.mkdir(parents=True)
    (path / "process.draft").write_text("{")
    place = places.take()
    assert json.loads((path / "process.json").read_text())["process_id"] == place.process_id


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
