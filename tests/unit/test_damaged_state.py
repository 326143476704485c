"""Local state on a disk that fails: damaged blocks, a full disk, no rights. The database is a real one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamstate import Processor, StateDirectoryFailed, Topology, dead_letter, serde, stores
from streamstate.engine.task.task import TaskId
from streamstate.rocksdb import Memory, RocksBackend, StateDirectory
from streamstate.state.backend import Backend, StateDamaged
from streamstate.testing.memory_broker.application import Disk
from tests.unit.application_support import Run

TEXT = serde.string()
NUMBER = serde.long()
KEYS = 2_000


class RocksDisk(Disk):
    """A real state directory, for a worker on the broker in memory."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.directory = StateDirectory(root, "app", None, Memory(1 << 20, 64 << 20))
        self.opened: list[RocksBackend] = []

    def open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> Backend:
        self.opened.append(self.directory.open_task(task_id, stores, fresh))
        return self.opened[-1]

    @property
    def database(self) -> Path:
        return self.directory.path / "tasks" / "in_0" / "db"


class Counting(Processor[str, str, str, int]):
    """Counts; a value "all" asks how many keys there are."""

    def init(self, context: Any) -> None:
        super().init(context)
        self.counts = context.store("counts")

    def process(self, key: str, value: str) -> None:
        if value == "all":
            self.context.forward("all", sum(1 for _ in self.counts.range()))
            return
        count = (self.counts.get(key) or 0) + 1
        self.counts.put(key, count)
        self.context.forward(key, count)


def topology(on_error: Any = "fail") -> Topology:
    made = Topology("t")
    counts = stores.key_value("counts", key=TEXT, value=NUMBER)
    stream = made.stream("in", key=TEXT, value=TEXT, on_error=on_error)
    stream.process(Counting, stores=[counts]).to("out", key=TEXT, value=NUMBER)
    return made


def key(number: int) -> bytes:
    # Long, so that there are many blocks.
    return b"%05d" % number * 40


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RocksDisk]:
    made = RocksDisk(tmp_path / "state")
    yield made
    made.directory.close()


def counted_once(disk: RocksDisk, on_error: Any = "fail") -> Run:
    """A stopped application that has counted every key once, all of it in files of sorted entries."""
    run = Run(topology(on_error), max_poll_records=500, cache_bytes=1)
    run.app.disks["w"] = disk
    run.send(*[(key(number), b"x") for number in range(KEYS)])
    run.until(lambda: len(run.out()) == KEYS)
    flush(disk.opened[-1])
    run.workers.pop("w").close()
    return run


def flush(backend: RocksBackend) -> None:
    for family in backend._families.values():
        family.flush()
    backend._db.flush()


def _in_the_middle(content: bytes) -> int:
    return len(content) // 2


def _last_block(content: bytes) -> int:
    # Entries come first in a file; what a key has in common with the one before is left out.
    return content.index(key(KEYS - 1)[4:])


def damage(database: Path, at: Callable[[bytes], int] = _in_the_middle) -> None:
    """Turn 100 bytes around in the largest file of entries."""
    largest = max(database.glob("*.sst"), key=lambda file: file.stat().st_size)
    assert largest.stat().st_size > 10_000
    with largest.open("r+b") as file:
        file.seek(at(largest.read_bytes()))
        there = file.read(100)
        file.seek(-100, os.SEEK_CUR)
        file.write(bytes(byte ^ 0xFF for byte in there))


def numbers(run: Run, start: int) -> list[int]:
    return [NUMBER.deserialize(value or b"") for _, value in run.out()[start:]]


# -- damaged blocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["fail", "continue", dead_letter("dead")], ids=str)
def test_a_damaged_file_is_set_aside_and_restored(
    disk: RocksDisk, on_error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run = counted_once(disk, on_error)
    damage(disk.database)
    run.start()
    run.send(*[(key(number), b"x") for number in range(KEYS)])
    run.until(lambda: len(run.out()) == 2 * KEYS)
    assert numbers(run, KEYS) == [2] * KEYS
    status = run.worker.status()
    assert status.failed == 0, "the records are not to blame"
    assert status.rollbacks >= 1
    # All of the changelog: what is committed by then.
    assert status.restore.records >= KEYS
    assert disk.database.with_name("db.corrupt").is_dir()
    assert "Corruption" in caplog.text
    assert "db.corrupt" in caplog.text
    run.worker.close()


def test_a_scan_does_not_end_silently_at_a_damaged_block(disk: RocksDisk) -> None:
    run = counted_once(disk)
    damage(disk.database)
    run.start()
    run.send((b"x", b"all"))
    run.until(lambda: len(run.out()) == KEYS + 1)
    assert numbers(run, KEYS) == [KEYS]
    run.worker.close()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
def test_every_scan_over_a_damaged_block_says_so(disk: RocksDisk, reverse: bool, bounded: bool) -> None:
    counted_once(disk)
    damage(disk.database)
    backend = disk.open(TaskId("in", 0), ["counts"], False)
    start, end = (key(10), key(KEYS - 10)) if bounded else (None, None)
    with pytest.raises(StateDamaged, match="Corruption"):
        list(backend.scan("counts", start, end, reverse))
    backend.close()


def test_a_store_is_not_cleared_by_half(disk: RocksDisk) -> None:
    counted_once(disk)
    damage(disk.database)
    backend = disk.open(TaskId("in", 0), ["counts"], False)
    backend.clear("counts")
    assert (backend.positions(), list(backend.scan("counts", None, None, False))) == ({}, [])
    assert [backend.reader("counts")(key(number)) for number in range(KEYS)] == [None] * KEYS
    backend.close()
    again = disk.open(TaskId("in", 0), ["counts"], False)
    assert (again.positions(), list(again.scan("counts", None, None, False))) == ({}, [])
    again.close()


def test_a_store_whose_end_is_damaged_is_not_cleared_by_half(disk: RocksDisk) -> None:
    """Up to where it has to be cleared is not known."""
    counted_once(disk)
    damage(disk.database, at=_last_block)
    backend = disk.open(TaskId("in", 0), ["counts"], False)
    with pytest.raises(StateDamaged):
        backend.clear("counts")
    assert "counts" in backend.positions()
    backend.close()
    again = disk.open(TaskId("in", 0), ["counts"], False)
    assert (again.positions(), list(again.scan("counts", None, None, False))) == ({}, [])
    again.close()


class Failing:
    """A database whose next write fails."""

    def __init__(self, database: Any, message: str) -> None:
        self._database = database
        self._message: str | None = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def write(self, batch: Any) -> None:
        message, self._message = self._message, None
        if message is not None:
            raise Exception(message)
        self._database.write(batch)


def test_damage_that_shows_when_a_commit_is_applied(disk: RocksDisk) -> None:
    """Kafka has committed: what the database did not take comes back from the changelog."""
    run = counted_once(disk)
    run.start()
    run.ticks(4)
    backend = disk.opened[-1]
    backend._db = Failing(backend._db, "Corruption: block checksum mismatch")
    run.send(*[(key(number), b"x") for number in range(100)])
    run.until(lambda: len(run.out()) == KEYS + 100)
    run.send(*[(key(number), b"x") for number in range(100)])
    run.until(lambda: len(run.out()) == KEYS + 200)
    assert numbers(run, KEYS) == [2] * 100 + [3] * 100
    run.worker.close()


def test_damage_that_shows_when_partitions_are_given_up(disk: RocksDisk) -> None:
    run = counted_once(disk)
    run.start()
    run.ticks(4)
    disk.opened[-1]._db = Failing(disk.opened[-1]._db, "Corruption: block checksum mismatch")
    run.send((key(1), b"x"))
    run.clock.advance(1)
    run.worker.tick()
    run.workers.pop("w").close()
    assert disk.database.with_name("db.corrupt").is_dir()
    run.start()
    run.send((key(1), b"x"))
    run.until(lambda: len(run.out()) == KEYS + 2)
    assert numbers(run, KEYS) == [2, 3]
    run.worker.close()


# -- a disk that takes no more ---------------------------------------------------------------------------------


def test_a_full_disk_ends_the_worker_and_loses_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be had here: {mounted.stderr.strip()}")
    try:
        fill_then_go_on(
            small, lambda: subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True) and None
        )
    finally:
        subprocess.run(["umount", str(small)], check=True)


LIMITED = """
import sys
from pathlib import Path
from tests.unit import test_damaged_state as tests

import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
tests.fill_then_go_on(Path(sys.argv[1]), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))
print("went on")
"""


def test_files_that_may_not_grow_end_the_worker_and_lose_nothing(tmp_path: Path) -> None:
    """The same where no disk can be made small: a limit on the size of files."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] in (resource.RLIM_INFINITY, -1)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.endswith("went on\n")


def fill_then_go_on(root: Path, make_room: Callable[[], None]) -> None:
    """Count until the disk takes no more; make room, start again, and find every count right."""
    disk = RocksDisk(root)
    run = Run(topology(), max_poll_records=500)
    run.app.disks["w"] = disk

    def feed() -> None:
        for _ in range(100):
            run.send(*[(key(number), b"x") for number in range(KEYS)])
            run.ticks(6)

    with pytest.raises(StateDirectoryFailed, match=r"in_0.*(No space left|File too large).*Nothing is lost"):
        feed()
    assert run.out(), "it did not even begin"
    run.workers.pop("w").close(commit=False)
    disk.directory.close()
    make_room()
    run.app.disks["w"] = again = RocksDisk(root)
    run.start()
    total = len(run.broker.read("in"))
    run.until(lambda: len(run.out()) == total, limit=1_000)
    rounds = total // KEYS
    assert [NUMBER.deserialize(value or b"") for _, value in run.out()] == [
        count for count in range(1, rounds + 1) for _ in range(KEYS)
    ]
    run.workers.pop("w").close()
    again.directory.close()


def test_a_state_directory_without_rights_says_so(tmp_path: Path) -> None:
    # A file where a directory has to be made: refused to every user, also to root.
    (tmp_path / "app").write_text("")
    with pytest.raises(StateDirectoryFailed, match=r"--state-dir"):
        StateDirectory(tmp_path, "app")


# -- many stores -----------------------------------------------------------------------------------------------


def test_many_stores_close_far_within_the_poll_deadline(tmp_path: Path) -> None:
    """They are closed inside the callback that gives partitions up. The deadline is 300 s."""
    directory = StateDirectory(tmp_path, "app", None, Memory(8 << 20, 64 << 20))
    backends = [directory.open_task(TaskId("in", number), ["counts"], False) for number in range(50)]
    for backend in backends:
        backend.apply({"counts": {key(number): os.urandom(200) for number in range(1_000)}}, {"counts": 1}, {})
    began = time.monotonic()
    for backend in backends:
        backend.begin_close()
    for backend in backends:
        backend.close()
    assert time.monotonic() - began < 30
    directory.close()
