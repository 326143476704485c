"""Restoring much: without a log, without order, and with whole batches lost at most."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamstate.rocksdb import backend as rocksdb
from streamstate.rocksdb.backend import Memory, RocksBackend

STORES = ("counts", "default")
PER_BATCH = 50
MUCH = rocksdb.BULK_RECORDS
VALUE = b"v" * 200

# Has applied something, restores by turns into two stores, and dies.
KILLED = f"""
import os, pathlib, signal, sys
from streamstate.rocksdb.backend import Memory, RocksBackend

path, batches, moment = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
backend = RocksBackend(path, {STORES}, Memory(1 << 20, 1 << 20))
backend.apply({{"counts": {{b"before": b"1"}}}}, {{"counts": 1, "default": 1}}, {{("lines", 0): 7}})
backend.restoring({MUCH})
for batch in range(batches):
    numbers = range(1 + batch * {PER_BATCH}, 1 + (batch + 1) * {PER_BATCH})
    for store in {STORES}:
        backend.restore(store, {{b"%07d" % (n * 7_919 % 1_000_000): {VALUE!r} for n in numbers}}, numbers[-1] + 1)
if moment == "restored":
    backend.restored()
if moment == "closed":
    backend.close()
if moment == "applied":
    backend.restored()
    backend.apply({{"counts": {{b"after": b"2"}}}}, {{"counts": 999_999}}, {{("lines", 0): 8}})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def memory() -> Memory:
    return Memory(1 << 20, 1 << 20)


@pytest.fixture
def backend(tmp_path: Path, memory: Memory) -> Iterator[RocksBackend]:
    made = RocksBackend(tmp_path / "db", STORES, memory)
    yield made
    made.close()


def content(backend: RocksBackend, store: str = "counts") -> dict[bytes, bytes]:
    return dict(backend.scan(store, None, None, False))


def left_by_a_killed_process(path: Path, batches: int, moment: str) -> None:
    dead = subprocess.run([sys.executable, "-c", KILLED, str(path), str(batches), moment], check=False)
    assert dead.returncode == -signal.SIGKILL


def expected(position: int) -> dict[bytes, bytes]:
    return {b"%07d" % (n * 7_919 % 1_000_000): VALUE for n in range(1, position)}


def log_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.log"))


def test_what_was_there_and_what_is_restored_are_there_afterwards(backend: RocksBackend) -> None:
    backend.apply({"counts": {b"old": b"1", b"gone": b"1"}}, {"counts": 1}, {("lines", 0): 9})
    backend.note({"topic_id:counts": "id"})
    backend.restoring(MUCH)
    assert (backend.positions(), backend.facts()) == ({"counts": 1}, {"topic_id:counts": "id"})
    backend.restore("counts", {b"b": b"2", b"a": b"1", b"gone": None}, 4)
    backend.restore("counts", {b"a": b"3", b"c": b"4"}, 6)
    backend.restore("default", {b"x": b"1"}, 2)
    backend.restored()
    assert content(backend) == {b"a": b"3", b"b": b"2", b"c": b"4", b"old": b"1"}
    assert content(backend, "default") == {b"x": b"1"}
    assert (backend.positions(), backend.offsets()) == ({"counts": 6, "default": 2}, {("lines", 0): 9})
    assert [backend.reader("counts")(key) for key in (b"a", b"gone")] == [b"3", None]
    backend.apply({"counts": {b"a": b"5"}}, {"counts": 7}, {("lines", 0): 10})
    assert (backend.reader("counts")(b"a"), backend.positions()["counts"]) == (b"5", 7)


def test_the_log_is_off_for_much_only(tmp_path: Path, backend: RocksBackend) -> None:
    backend.restoring(MUCH - 1)
    before = log_bytes(tmp_path / "db")
    backend.restore("counts", {b"a": VALUE}, 1)
    logged = log_bytes(tmp_path / "db")
    assert logged >= before + len(VALUE)
    backend.restoring(MUCH)
    backend.restoring(MUCH)
    before = log_bytes(tmp_path / "db")
    backend.restore("counts", {b"b": VALUE}, 2)
    assert log_bytes(tmp_path / "db") == before
    backend.restored()
    backend.restored()
    before = log_bytes(tmp_path / "db")
    backend.apply({"counts": {b"c": VALUE}}, {"counts": 3}, {})
    assert log_bytes(tmp_path / "db") >= before + len(VALUE)


def test_a_commit_has_to_wait_until_all_is_restored(backend: RocksBackend) -> None:
    backend.restoring(MUCH)
    with pytest.raises(AssertionError, match="while the state is restored"):
        backend.apply({"counts": {b"a": b"1"}}, {"counts": 1}, {})


def test_a_store_can_be_cleared_meanwhile(backend: RocksBackend) -> None:
    backend.restoring(MUCH)
    backend.restore("counts", {b"a": b"1", b"b": b"1"}, 3)
    backend.clear("counts")
    assert (content(backend), backend.positions()) == ({}, {})
    backend.restore("counts", {b"c": b"1"}, 1)
    backend.restored()
    assert (content(backend), backend.positions()) == ({b"c": b"1"}, {"counts": 1})


def test_a_process_killed_meanwhile_loses_whole_batches_and_their_positions(tmp_path: Path, memory: Memory) -> None:
    batches = 200
    left_by_a_killed_process(tmp_path / "db", batches, "restoring")
    found = RocksBackend(tmp_path / "db", STORES, memory)
    try:
        positions = found.positions()
        # Some of it is in files by then, and some is not: else this would show nothing.
        assert all(1 < position < 1 + batches * PER_BATCH for position in positions.values()), positions
        assert content(found) == {b"before": b"1", **expected(positions["counts"])}
        assert content(found, "default") == expected(positions["default"])
        assert found.offsets() == {("lines", 0): 7}
    finally:
        found.close()


def test_a_process_killed_before_anything_is_in_a_file_has_what_it_had_before(tmp_path: Path, memory: Memory) -> None:
    left_by_a_killed_process(tmp_path / "db", 1, "restoring")
    found = RocksBackend(tmp_path / "db", STORES, memory)
    try:
        assert (content(found), content(found, "default")) == ({b"before": b"1"}, {})
        assert (found.positions(), found.offsets()) == ({"counts": 1, "default": 1}, {("lines", 0): 7})
    finally:
        found.close()


@pytest.mark.parametrize("moment", ["restored", "closed"])
def test_a_process_killed_afterwards_loses_nothing(tmp_path: Path, memory: Memory, moment: str) -> None:
    left_by_a_killed_process(tmp_path / "db", 3, moment)
    found = RocksBackend(tmp_path / "db", STORES, memory)
    try:
        assert found.positions() == dict.fromkeys(STORES, 1 + 3 * PER_BATCH)
        assert content(found) == {b"before": b"1", **expected(1 + 3 * PER_BATCH)}
        assert content(found, "default") == expected(1 + 3 * PER_BATCH)
    finally:
        found.close()


def test_what_is_committed_afterwards_outlives_a_kill(tmp_path: Path, memory: Memory) -> None:
    left_by_a_killed_process(tmp_path / "db", 3, "applied")
    found = RocksBackend(tmp_path / "db", STORES, memory)
    try:
        assert content(found) == {b"before": b"1", b"after": b"2", **expected(1 + 3 * PER_BATCH)}
        assert found.positions() == {"counts": 999_999, "default": 1 + 3 * PER_BATCH}
        assert found.offsets() == {("lines", 0): 8}
    finally:
        found.close()


@pytest.mark.parametrize("families", [["counts"], ["default"], ["counts", "default"], []])
def test_a_kill_between_the_files_of_two_stores_leaves_no_position_ahead_of_its_entries(
    tmp_path: Path, families: list[str]
) -> None:
    """What ``restored`` does step by step: stores that have their files, and positions that do not."""
    # So much that nothing goes to a file by itself.
    memory = Memory(1 << 20, 64 << 20)
    first = RocksBackend(tmp_path / "db", STORES, memory)
    first.restoring(MUCH)
    for store in STORES:
        first.restore(store, expected(40), 40)
    for store in families:
        first._families[store].flush(True)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(tmp_path / "db"), str(copy)], check=True)
    first.close()
    found = RocksBackend(copy, STORES, memory)
    try:
        assert found.positions() == {}
        for store in STORES:
            assert content(found, store) == (expected(40) if store in families else {})
    finally:
        found.close()


def test_a_database_that_cannot_be_opened_again_is_not_replaced_by_an_empty_one(
    tmp_path: Path, backend: RocksBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.apply({"counts": {b"a": b"1"}}, {"counts": 1}, {})

    def damaged(*arguments: object, **options: object) -> None:
        raise RuntimeError("Corruption: a block")

    with monkeypatch.context() as patch:
        patch.setattr(rocksdb, "_open_files", damaged)
        with pytest.raises(rocksdb.StateDamaged):
            backend.restoring(MUCH)
    # As for all damaged state: what was there is kept aside, and the next one starts empty and is restored.
    backend.close()
    assert (tmp_path / "db.corrupt").is_dir()
    assert not (tmp_path / "db").exists()
