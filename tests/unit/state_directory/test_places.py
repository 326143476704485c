"""Each process has a place of its own in the state directory."""

from __future__ import annotations

import json
import os

import pytest

from streamstate.errors import StateDirectoryLocked, TaskCorrupted
from streamstate.rocksdb import directory as module
from streamstate.rocksdb.directory import try_lock
from tests.unit.state_directory.support import Places, read, write

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
