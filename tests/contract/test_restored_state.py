"""What a crash leaves of a restore that goes past RocksDB's log: never a position without what it speaks of."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamstate.errors import StateDirectoryFailed
from streamstate.rocksdb.backend import Memory, RocksBackend
from tests.contract.restored_and_killed import BATCH, EARLIER, END, MOMENTS, changelog, newest

ROOT = Path(__file__).parents[2]
TRUTH = {key: value for key, value in newest(changelog()).items() if value is not None}


def left_behind(path: Path, moment: str, earlier: bool, buffer_bytes: int, keep_every_s: int) -> RocksBackend:
    arguments = [str(path), moment, str(earlier), str(buffer_bytes), str(keep_every_s)]
    child = [sys.executable, "-m", "tests.contract.restored_and_killed", *arguments]
    dead = subprocess.run(child, check=False, capture_output=True, text=True, cwd=ROOT)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    return RocksBackend(path, ["s", "other"], Memory(1 << 20, 1 << 20))


def content(backend: RocksBackend, store: str = "s") -> dict[bytes, bytes]:
    return dict(backend.scan(store, None, None, False))


def replayed(backend: RocksBackend) -> dict[bytes, bytes]:
    """The store after a replay from where it says that it is."""
    position = backend.positions().get("s", 0)
    backend.restore("s", newest(changelog()[position:]), END)
    return content(backend)


def of_the_other(position: int, earlier: bool) -> dict[bytes, bytes]:
    """What that store has at a position."""
    first = EARLIER if earlier else 0
    return {b"%d" % after: b"v" * 50 for after in range(first + BATCH, position + 1, BATCH)}


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
    kept = moment in ("kept", "applied", "closed")
    assert backend.positions().get("other") == (END if kept else 1 if earlier else None)
    if kept:
        assert content(backend, "other") == of_the_other(END, earlier)
    assert backend.offsets() == ({("in", 0): 2} if moment == "applied" else {("in", 0): 1} if earlier else {})
    applied = {b"applied": b"1"} if moment == "applied" else {}
    assert replayed(backend) == TRUTH | applied
    backend.close()


@pytest.mark.parametrize("earlier", [False, True], ids=["empty", "behind"])
@pytest.mark.parametrize("moment", ["7", "25"])
def test_what_was_restored_for_long_is_kept_on_the_way(moment: str, earlier: bool, tmp_path: Path) -> None:
    backend = left_behind(tmp_path / "db", moment, earlier, 64 << 20, 0)
    assert backend.positions() == {"s": int(moment) * BATCH, "other": int(moment) * BATCH}
    assert content(backend, "other") == of_the_other(int(moment) * BATCH, earlier)
    assert backend.current_s.keys() == {"s", "other"}, "entries without an age"
    assert replayed(backend) == TRUTH
    backend.close()


class Refusing:
    """A store that does not flush: at once, or at all."""

    def __init__(self, family: Any, waiting: bool) -> None:
        self._family = family
        self._waiting = waiting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def flush(self, wait: bool = True) -> None:
        if not wait or self._waiting:
            raise Exception("Result incomplete: Writes have been stopped")
        self._family.flush()


@pytest.mark.parametrize("waiting", [False, True])
def test_a_flush_that_is_refused(waiting: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(1 << 20, 1 << 20)
    backend = RocksBackend(tmp_path / "db", ["s", "other"], memory)
    backend._families["s"] = Refusing(backend._families["s"], waiting)
    backend.restore("s", {b"k": b"v"}, 7, complete=True)
    if waiting:
        with pytest.raises(StateDirectoryFailed, match="stopped"):
            backend.apply({"s": {b"k": b"w"}}, {"s": 8}, {("in", 0): 1})
    backend.close()
    assert ("will be restored again" in caplog.text) is waiting
    backend = RocksBackend(tmp_path / "db", ["s", "other"], memory)
    assert backend.positions() == ({} if waiting else {"s": 7})
    assert backend.offsets() == {}
    backend.close()


def test_clearing_forgets_what_was_restored_and_not_kept(tmp_path: Path) -> None:
    memory = Memory(1 << 20, 64 << 20)
    backend = RocksBackend(tmp_path / "db", ["s", "other"], memory)
    backend.restore("s", newest(changelog()), END)
    backend.restore("other", {b"": b"1", b"\xff\xff": b"2"}, 5)
    backend.clear("s")
    assert (backend.positions(), content(backend)) == ({"other": 5}, {})
    backend.clear("other")
    backend.restore("other", {b"k": b"3"}, 6)
    backend.close()
    backend = RocksBackend(tmp_path / "db", ["s", "other"], memory)
    assert (backend.positions(), content(backend), content(backend, "other")) == ({"other": 6}, {}, {b"k": b"3"})
    backend.close()
