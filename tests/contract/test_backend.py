"""What every backend holds to: one suite over the one in memory and the one on RocksDB, and what only a disk has."""

from __future__ import annotations

import gc
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rocksdict import Rdict, WriteBatch

from streamstate.errors import TaskCorrupted
from streamstate.rocksdb import backend as rocks
from streamstate.rocksdb.backend import Memory, RocksBackend
from streamstate.state.backend import Backend, MemoryBackend

STORES = ("counts", "default", "später")
ENTRIES = {b"": b"empty", b"\x00": b"0", b"a": b"1", b"a\x00": b"2", b"ab": b"", b"b": b"4", b"\xff\xff": b"5"}

Open = Callable[[Sequence[str]], Backend]


# Applies batches and dies: the files are then at rest, as they are after a kill. (An open database deletes and renames
# its files whenever it likes, so they cannot be copied.)
KILLED = """
import os, pathlib, signal, sys
from streamstate.rocksdb.backend import Memory, RocksBackend

backend = RocksBackend(pathlib.Path(sys.argv[1]), ["counts", "default"], Memory(1 << 20, 64 << 20))
for number in range(1, 21):
    value = b"%d" % number
    backend.apply(
        {"counts": {b"k": value * 50}, "default": {b"k": value}}, {"counts": number}, {("lines", 0): number}
    )
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_killed_process(path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert dead.returncode == -signal.SIGKILL


@pytest.fixture(scope="session")
def memory() -> Memory:
    return Memory(1 << 20, 1 << 20)


@pytest.fixture(params=["memory", "rocksdb"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, memory: Memory) -> Iterator[Backend]:
    made: Backend = MemoryBackend(STORES) if request.param == "memory" else RocksBackend(tmp_path, STORES, memory)
    yield made
    made.close()


def content(backend: Backend, store: str = "counts") -> dict[bytes, bytes]:
    return dict(backend.scan(store, None, None, False))


# -- both ------------------------------------------------------------------------------------------------------


def test_what_has_expired_goes_as_one_range_before_the_writes(backend: Backend) -> None:
    backend.apply({"counts": ENTRIES, "default": ENTRIES}, {"counts": 1}, {})
    backend.apply(
        {"counts": {b"a": None, b"a\x00": None, b"ab": b"new", b"b": None}}, {"counts": 2}, {}, {"counts": b"ab"}
    )
    assert list(backend.scan("counts", None, None, False)) == [(b"ab", b"new"), (b"\xff\xff", b"5")]
    assert backend.reader("counts")(b"a") is None
    assert dict(backend.scan("default", None, None, False)) == ENTRIES, "of another store nothing expires"
    assert backend.positions() == {"counts": 2}


def test_expiry_is_part_of_the_whole(backend: Backend) -> None:
    backend.apply({"counts": ENTRIES}, {"counts": 1}, {})
    with pytest.raises(KeyError):
        backend.apply({"unknown": {b"k": b"v"}}, {"counts": 2}, {}, {"counts": b"z"})
    with pytest.raises(KeyError):
        backend.apply({}, {"counts": 2}, {}, {"counts": b"z", "unknown": b"z"})
    assert dict(backend.scan("counts", None, None, False)) == ENTRIES
    assert backend.positions() == {"counts": 1}


def test_an_entry_written_again_after_its_range_expired_is_there(backend: Backend) -> None:
    backend.apply({"counts": {b"a": b"1"}}, {}, {}, {})
    backend.apply({"counts": {b"a": None}}, {}, {}, {"counts": b"b"})
    backend.apply({"counts": {b"a": b"2"}}, {}, {})
    assert list(backend.scan("counts", None, b"b", False)) == [(b"a", b"2")]
    assert list(backend.scan("counts", None, b"b", True)) == [(b"a", b"2")]


def test_a_new_one_is_empty(backend: Backend) -> None:
    assert backend.reader("counts")(b"a") is None
    assert content(backend) == {}
    assert backend.positions() == {}
    assert backend.offsets() == {}
    assert backend.facts() == {}


def test_a_reader_sees_what_was_applied_and_restored_after_it_was_made(backend: Backend) -> None:
    read = backend.reader("counts")
    backend.apply({"counts": ENTRIES}, {}, {})
    assert {key: read(key) for key in ENTRIES} == ENTRIES
    assert read(b"absent") is None
    backend.restore("counts", {b"a": b"restored"}, 1)
    assert read(b"a") == b"restored"
    backend.apply({"counts": {b"a": None}}, {}, {})
    assert read(b"a") is None


def test_stores_are_apart_whatever_they_are_called(backend: Backend) -> None:
    backend.apply({store: {b"k": store.encode()} for store in STORES}, dict.fromkeys(STORES, 7), {})
    backend.clear("default")
    assert [backend.reader(store)(b"k") for store in STORES] == [b"counts", None, "später".encode()]
    assert backend.positions() == {"counts": 7, "später": 7}


@pytest.mark.parametrize("reverse", [False, True])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.none() | st.sampled_from([*ENTRIES, b"aa", b"c"]), end=st.none() | st.sampled_from([*ENTRIES, b"aa", b"c"])
)
def test_scans_are_bounded_and_in_order(
    backend: Backend, start: bytes | None, end: bytes | None, reverse: bool
) -> None:
    backend.apply({"counts": ENTRIES, "default": {b"a": b"other", b"zz": b"other"}}, {"counts": 1}, {("t", 0): 1})
    expected = sorted(
        (key, value) for key, value in ENTRIES.items() if (start is None or key >= start) and (end is None or key < end)
    )
    assert list(backend.scan("counts", start, end, reverse)) == (expected[::-1] if reverse else expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_shows_the_moment_it_was_made(backend: Backend, reverse: bool) -> None:
    backend.apply({"counts": {b"a": b"1", b"b": b"2", b"c": b"3"}}, {}, {})
    entries = backend.scan("counts", None, None, reverse)
    late = backend.scan("counts", None, None, reverse)
    first = next(entries)
    backend.apply({"counts": {b"a": b"9", b"b": None, b"c": None, b"bb": b"9"}}, {}, {})
    expected = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert [first, *entries] == (expected[::-1] if reverse else expected)
    assert list(late) == (expected[::-1] if reverse else expected)


def test_apply_moves_positions_and_offsets_and_keeps_the_others(backend: Backend) -> None:
    backend.apply({}, {"counts": 5, "default": 1}, {("lines", 0): 7, ("a:b", 12): 1})
    backend.apply({"counts": {}}, {"counts": 2**40}, {("lines", 0): 2**40})
    assert backend.positions() == {"counts": 2**40, "default": 1}
    assert backend.offsets() == {("lines", 0): 2**40, ("a:b", 12): 1}


def test_a_refused_apply_changes_nothing(backend: Backend) -> None:
    backend.apply({"counts": {b"a": b"1"}}, {"counts": 1}, {("lines", 0): 1})
    with pytest.raises(KeyError):
        backend.apply({"counts": {b"a": b"2", b"b": b"2"}, "unknown": {b"k": b"v"}}, {"counts": 2}, {("lines", 0): 2})
    assert content(backend) == {b"a": b"1"}
    assert (backend.positions(), backend.offsets()) == ({"counts": 1}, {("lines", 0): 1})


def test_restore_applies_all_and_moves_only_its_position(backend: Backend) -> None:
    backend.apply({"counts": {b"old": b"1", b"kept": b"1"}}, {"counts": 1, "default": 3}, {("lines", 0): 9})
    backend.restore("counts", {b"old": None, b"a": b"2", b"b": None}, 12)
    assert content(backend) == {b"kept": b"1", b"a": b"2"}
    assert backend.positions() == {"counts": 12, "default": 3}
    assert backend.offsets() == {("lines", 0): 9}
    backend.restore("counts", {}, 14)
    assert backend.positions()["counts"] == 14


def test_clear_forgets_the_store_and_its_position_only(backend: Backend) -> None:
    backend.apply({"counts": ENTRIES, "default": {b"k": b"v"}}, {"counts": 1, "default": 2}, {("lines", 0): 3})
    backend.note({"topic_id:counts": "id"})
    backend.clear("counts")
    assert content(backend) == {}
    assert backend.reader("counts")(b"a") is None
    assert content(backend, "default") == {b"k": b"v"}
    assert backend.positions() == {"default": 2}
    assert backend.offsets() == {("lines", 0): 3}
    assert backend.facts() == {"topic_id:counts": "id"}


def test_facts_are_kept_and_overwritten(backend: Backend) -> None:
    backend.note({"topic_id:counts": "one", "größe": "ä"})
    backend.note({"topic_id:counts": "two"})
    assert backend.facts() == {"topic_id:counts": "two", "größe": "ä"}


def test_what_it_answers_may_be_changed(backend: Backend) -> None:
    backend.apply({}, {"counts": 1}, {("lines", 0): 1})
    backend.note({"a": "b"})
    backend.positions().clear()
    backend.offsets().clear()
    backend.facts().clear()
    assert (backend.positions(), backend.offsets(), backend.facts()) == ({"counts": 1}, {("lines", 0): 1}, {"a": "b"})


# -- on disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def open_(tmp_path: Path, memory: Memory) -> Open:
    return lambda stores: RocksBackend(tmp_path / "db", stores, memory)


def test_what_was_applied_is_there_after_reopening(open_: Open) -> None:
    first = open_(["counts"])
    first.apply({"counts": ENTRIES}, {"counts": 5}, {("lines", 3): 8})
    first.note({"a": "b"})
    first.close()
    second = open_(["counts"])
    assert content(second) == ENTRIES
    assert (second.positions(), second.offsets(), second.facts()) == ({"counts": 5}, {("lines", 3): 8}, {"a": "b"})
    second.close()


def test_a_killed_process_loses_nothing_it_applied(tmp_path: Path, memory: Memory) -> None:
    left_by_a_killed_process(tmp_path / "left")
    found = RocksBackend(tmp_path / "left", ["counts", "default"], memory)
    assert content(found) == {b"k": b"20" * 50}
    assert content(found, "default") == {b"k": b"20"}
    assert (found.positions(), found.offsets()) == ({"counts": 20}, {("lines", 0): 20})
    found.close()


def test_a_torn_log_loses_whole_batches_only(tmp_path: Path, memory: Memory) -> None:
    left_by_a_killed_process(tmp_path / "left")
    log = max((tmp_path / "left").glob("*.log"), key=lambda file: file.stat().st_size)
    whole = log.read_bytes()
    seen = set()
    for cut in range(0, 600, 37):
        log.write_bytes(whole[: len(whole) - cut])
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "left", copy)
        found = RocksBackend(copy, ["counts", "default"], memory)
        number = found.positions().get("counts", 0)
        seen.add(number)
        assert found.offsets() == ({("lines", 0): number} if number else {})
        assert found.reader("default")(b"k") == (b"%d" % number if number else None)
        assert found.reader("counts")(b"k") == (b"%d" % number * 50 if number else None)
        found.close()
    assert len(seen) > 2


def test_stores_come_and_go_between_openings(open_: Open) -> None:
    first = open_(["counts", "old"])
    first.apply({"counts": {b"k": b"1"}, "old": {b"k": b"2"}}, {"counts": 1, "old": 2}, {})
    first.close()
    second = open_(["counts", "new"])
    assert content(second) == {b"k": b"1"}
    assert content(second, "new") == {}
    second.apply({"new": {b"k": b"3"}}, {"new": 3}, {})
    second.close()
    # The one that had left comes back as it was, at the position it was.
    third = open_(["counts", "new", "old"])
    assert (content(third, "old"), content(third, "new")) == ({b"k": b"2"}, {b"k": b"3"})
    assert third.positions() == {"counts": 1, "old": 2, "new": 3}
    third.close()


def test_closing_releases_the_database_and_then_the_directory(tmp_path: Path, memory: Memory) -> None:
    released: list[bool] = []

    def release() -> None:
        # The database can be opened by another process by now.
        RocksBackend(tmp_path, ["counts"], memory).close()
        released.append(True)

    first = RocksBackend(tmp_path, ["counts"], memory, release)
    first.apply({"counts": {b"k": b"v"}}, {}, {})
    with pytest.raises(Exception, match=r"(?i)lock"):
        RocksBackend(tmp_path, ["counts"], memory)
    first.close()
    assert released == [True]


def write_format(path: Path, memory: Memory, version: bytes) -> None:
    database = Rdict(str(path), options=memory.options())
    batch = WriteBatch(raw_mode=True)
    batch.put(rocks.FORMAT_KEY, version)
    database.write(batch)
    database.close()


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path, memory: Memory) -> None:
    path = tmp_path / "db"
    write_format(path, memory, b"2")
    for _ in range(2):
        # The second time shows that the first has let go of it.
        with pytest.raises(TaskCorrupted, match="has format 2, this version of streamstate reads format 1"):
            RocksBackend(path, ["counts"], memory)
        gc.collect()
    assert not list(tmp_path.glob("*.corrupt"))


@pytest.mark.parametrize("damage", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_damage_seen_at_opening_is_set_aside(
    damage: str, tmp_path: Path, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "db"
    for _ in range(2):
        first = RocksBackend(path, ["counts"], memory)
        first.apply({"counts": {b"k": b"v"}}, {"counts": 9}, {("lines", 0): 9})
        first._families["counts"].flush()
        first._db.flush()
        first.close()
        for file in path.glob(damage):
            file.write_bytes(b"this was something else once")
        with caplog.at_level(logging.WARNING):
            second = RocksBackend(path, ["counts"], memory)
        assert content(second) == {}
        assert (second.positions(), second.offsets()) == ({}, {})
        second.close()
        assert (tmp_path / "db.corrupt").is_dir()
        assert "is damaged" in caplog.text
        assert "restored from the changelog" in caplog.text
