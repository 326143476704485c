"""What a crash leaves of a restore that goes past RocksDB's log: never a position without what it speaks of."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamstate.rocksdb.backend import Memory, RocksBackend
from tests.contract.restored_and_killed import BATCH, EARLIER, END, MOMENTS, changelog, newest

TRUTH = {key: value for key, value in newest(changelog()).items() if value is not None}


def left_behind(path: Path, moment: str, earlier: bool, buffer_bytes: int, keep_every_s: int) -> RocksBackend:
    arguments = [str(path), moment, str(earlier), str(buffer_bytes), str(keep_every_s)]
    child = [sys.executable, "-m", "tests.contract.restored_and_killed", *arguments]
    dead = subprocess.run(child, check=False, capture_output=True, text=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    return RocksBackend(path, ["s", "other"], Memory(1 << 20, 1 << 20))


def replayed(backend: RocksBackend) -> dict[bytes, bytes]:
    """The store after a replay from where it says that it is."""
    position = backend.positions().get("s", 0)
    backend.restore("s", newest(changelog()[position:]), END)
    return dict(backend.scan("s", None, None, False))


# RocksDB writes files on its own where its buffer is small.
@pytest.mark.parametrize("buffer_bytes", [64 << 10, 64 << 20], ids=["small", "large"])
@pytest.mark.parametrize("earlier", [False, True], ids=["empty", "behind"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_replay_from_the_position_that_a_kill_leaves_makes_the_store(
    moment: str, earlier: bool, buffer_bytes: int, tmp_path: Path
) -> None:
    backend = left_behind(tmp_path / "db", moment, earlier, buffer_bytes, 30)
    before = EARLIER if earlier else None
    expected = {"kept": END, "applied": END + 1, "closed": END}.get(moment, before)
    assert backend.positions().get("s") == expected
    assert backend.positions().get("other") == (1 if earlier else None)
    assert backend.offsets() == ({("in", 0): 2} if moment == "applied" else {("in", 0): 1} if earlier else {})
    applied = {b"applied": b"1"} if moment == "applied" else {}
    assert replayed(backend) == TRUTH | applied
    backend.close()


@pytest.mark.parametrize("earlier", [False, True], ids=["empty", "behind"])
@pytest.mark.parametrize("moment", ["7", "25"])
def test_what_was_restored_for_long_is_kept_on_the_way(moment: str, earlier: bool, tmp_path: Path) -> None:
    backend = left_behind(tmp_path / "db", moment, earlier, 64 << 20, 0)
    assert backend.positions()["s"] == int(moment) * BATCH
    assert backend.current_s is not None, "entries without an age"
    assert replayed(backend) == TRUTH
    backend.close()
