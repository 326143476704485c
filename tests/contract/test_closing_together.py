"""Databases that are closed at the same time: each keeps what it had, and a kill on the way leaves each of them whole.

Crash points of one database, none of which depends on another: before what was restored is in files; between that and
its position; before it is closed; before its directory is let go.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from streamstate.engine.task.task import TaskId
from streamstate.errors import StateDirectoryFailed
from streamstate.rocksdb import Memory, StateDirectory
from streamstate.rocksdb.backend import CLOSING, RocksBackend

ROOT = Path(__file__).parents[2]
DATABASES = 20
ENTRIES = {b"%d" % number: b"v" * 100 for number in range(200)}

CLOSED_AND_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.contract import test_closing_together as tests

backends = tests.restored(Path(sys.argv[1]))
for backend in backends:
    backend.begin_close()
for backend in backends[: int(sys.argv[2])]:
    backend.close()
os.kill(os.getpid(), signal.SIGKILL)
"""


def restored(root: Path) -> list[RocksBackend]:
    """Each has a commit, and behind it what was restored past the log."""
    place = StateDirectory(root, "app", None, Memory(1 << 20, 64 << 20))
    backends = [place.open_task(TaskId("in", number), ["s"], False) for number in range(DATABASES)]
    for backend in backends:
        backend.apply({"s": {b"first": b"1"}}, {"s": 1}, {("in", 0): 1})
        backend.restore("s", ENTRIES, 9)
    return backends


@pytest.mark.parametrize("waited_for", [0, 1, DATABASES // 2, DATABASES])
def test_a_kill_while_they_close_leaves_no_position_without_its_entries(waited_for: int, tmp_path: Path) -> None:
    child = [sys.executable, "-c", CLOSED_AND_KILLED, str(tmp_path), str(waited_for)]
    dead = subprocess.run(child, check=False, capture_output=True, text=True, cwd=ROOT)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    place = StateDirectory(tmp_path, "app", None, Memory(1 << 20, 1 << 20))
    for number in range(DATABASES):
        backend = place.open_task(TaskId("in", number), ["s"], False)
        position, content = backend.positions()["s"], dict(backend.scan("s", None, None, False))
        assert position in (1, 9)
        assert position == 9 or number >= waited_for, "its close returned before it had kept what was restored"
        if position == 9:
            assert content == {b"first": b"1"} | ENTRIES
        assert content[b"first"] == b"1"
        backend.close()
    place.close()


def test_they_close_beside_each_other_and_let_go_of_their_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(CLOSING, timeout=60)
    close = RocksBackend._close

    def wait_for_the_others(backend: RocksBackend) -> None:
        if backend in first:
            barrier.wait()
        close(backend)

    monkeypatch.setattr(RocksBackend, "_close", wait_for_the_others)
    backends = restored(tmp_path)
    first = backends[:CLOSING]
    for backend in backends:
        backend.begin_close()
    for backend in backends:
        backend.close()
    place = StateDirectory(tmp_path, "app", "another", Memory(1 << 20, 1 << 20))
    for number in range(DATABASES):
        backend = place.open_task(TaskId("in", number), ["s"], False)
        assert backend.positions() == {"s": 9}
        backend.close()
    place.close()


def test_what_fails_while_it_closes_beside_is_raised_by_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends = restored(tmp_path)
    close = RocksBackend._close

    def fail(backend: RocksBackend) -> None:
        close(backend)
        if backend is backends[0]:
            raise StateDirectoryFailed("no room to set it aside")

    monkeypatch.setattr(RocksBackend, "_close", fail)
    for backend in backends:
        backend.begin_close()
    with pytest.raises(StateDirectoryFailed, match="set it aside"):
        backends[0].close()
    for backend in backends[1:]:
        backend.close()
