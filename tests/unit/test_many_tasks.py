"""Hundreds of tasks in one process: what they share of the machine, and what is said where it is too small.

The databases are real ones, in processes of their own with a limit on open files.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamstate import Processor, Topology, serde
from streamstate.engine.task.task import TaskId
from streamstate.errors import ConfigError, StateDirectoryFailed, TooManyOpenFiles
from streamstate.rocksdb import Memory, OpenFiles, StateDirectory
from streamstate.rocksdb import files as module
from streamstate.rocksdb.backend import _is_corruption, failed
from streamstate.state.backend import Backend
from streamstate.testing.memory_broker.application import Disk, KeptBackend
from tests.unit.application_support import Run

ROOT = Path(__file__).parents[2]
USUAL = 1_024
WRITE_BUFFERS = 8 << 20
COMMITS = 3


def topology() -> Topology:
    """Two sub-topologies: one without a store, one that counts."""
    made = Topology("t")
    lines = made.stream("in", value=serde.string())
    counted = lines.group_by(lambda _, value: value, key=serde.string(), value=serde.string()).count(store="counts")
    counted.to_stream().to("out", value=serde.long())
    return made


class LimitedDisk(Disk):
    """A real state directory, in a process that has a limit on open files."""

    def __init__(self, root: Path, tasks: int) -> None:
        super().__init__()
        self.files = OpenFiles(tasks, stores=1)
        self.files.raise_limit()
        self.memory = Memory(1 << 20, WRITE_BUFFERS)
        self.directory = StateDirectory(root, "app", None, self.memory, files=self.files)

    def expect(self, stores_of_tasks: Sequence[int]) -> None:
        self.directory.expect(stores_of_tasks)

    def open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> Backend:
        return self.directory.open_task(task_id, stores, fresh)


def count_with(root: Path, partitions: int, rounds: int) -> dict[str, Any]:
    """Count words over twice as many tasks, stop, go on; what the process had of the machine meanwhile."""
    run = Run(topology(), topics={"in": partitions, "out": 1})
    # Of a size that needs more than the first bytes of a write buffer, which count for nothing.
    words = [f"{number:03000d}" for number in range(partitions)]
    seen: dict[str, Any] = {}
    for started in range(rounds):
        run.app.disks["w"] = disk = LimitedDisk(root, 2 * partitions)
        run.start()
        before = len(list(root.rglob("*.sst")))
        for done in range(started * COMMITS, (started + 1) * COMMITS):
            for number, word in enumerate(words):
                run.broker.append("in", key=None, value=word.encode(), partition=number)
            run.until(lambda done=done: len(run.out()) == (done + 1) * partitions)  # type: ignore[misc]
        seen = {
            "written": len(list(root.rglob("*.sst"))) - before,
            "files": len(os.listdir("/dev/fd")),
            "threads": len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0,
            "write_buffers": disk.memory.write_buffers.get_usage(),
            "tables": disk.files.tables,
            "limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "tasks": len(run.worker.assignment.tasks),
        }
        run.workers.pop("w").close()
        disk.directory.close()
    seen["counted"] = sorted({serde.long().deserialize(value or b"") for _, value in run.out()})
    seen["left"] = len(os.listdir("/dev/fd"))
    return seen


def under(soft: int, hard: int, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process with these limits on open files."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    program = f"import json, sys\nfrom pathlib import Path\nfrom tests.unit import test_many_tasks as tests\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )


def counted(soft: int, hard: int, root: Path, partitions: int, rounds: int) -> dict[str, Any]:
    code = f"print(json.dumps(tests.count_with(Path(sys.argv[1]), {partitions}, {rounds})))"
    done = under(soft, hard, code, str(root))
    assert done.returncode == 0, done.stderr[-3_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_300_tasks_run_under_the_usual_soft_limit(tmp_path: Path) -> None:
    found = counted(USUAL, 4_096, tmp_path, 150, 2)
    assert found["tasks"] == 300
    assert found["counted"] == [*range(1, 2 * COMMITS + 1)], "a restart lost or repeated something"
    assert found["files"] > USUAL, "the limit was not needed"
    assert found["limit"] == 4_096
    assert found["tables"] == module.LEAST_TABLES
    # A few threads of RocksDB's for all databases, and a few that close them.
    assert found["threads"] < 25
    # Begun write buffers of all tasks are within the budget: no commit writes files of a few entries.
    assert found["write_buffers"] < WRITE_BUFFERS
    assert found["written"] == 0
    assert found["left"] < 100, "databases were left open"


def test_as_many_tasks_as_fit_run_where_the_limit_cannot_be_raised(tmp_path: Path) -> None:
    found = counted(USUAL, USUAL, tmp_path, 40, 2)
    assert (found["tasks"], found["limit"]) == (80, USUAL)
    assert found["counted"] == [*range(1, 2 * COMMITS + 1)]


def test_tasks_that_do_not_fit_are_refused_before_the_first_is_opened(tmp_path: Path) -> None:
    done = under(USUAL, USUAL, "tests.count_with(Path(sys.argv[1]), 150, 1)", str(tmp_path))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "TooManyOpenFiles: this process has 300 tasks" in last
    assert "its limit is 1024, which may be raised to 1024 at most" in last
    assert "ulimit -n 2" in last
    assert not list(tmp_path.glob("app/*/tasks/*")), "something was opened"


def reach_the_limit(root: Path) -> list[str]:
    """Open a task's state with room for no file, for one, for two and so on, until it opens; what was said before."""
    place = StateDirectory(root, "app", None, Memory(1 << 20, 1 << 20))
    refusals: list[str] = []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    while True:
        # Without a gap below: what is open stands in one row, but for the one that lists it.
        used = len(os.listdir("/dev/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + len(refusals), hard))
        try:
            backend = place.open_task(TaskId("in", 0), ["counts"], False)
        except TooManyOpenFiles as error:
            refusals.append(str(error))
            continue
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        break
    assert backend.reader("counts")(b"k") == b"v"
    backend.close()
    place.close()
    return refusals


def test_the_limit_is_neither_a_full_disk_nor_damage(tmp_path: Path) -> None:
    """At each of the files that a database opens; a healthy database must not be set aside for it."""
    place = StateDirectory(tmp_path, "app", None, Memory(1 << 20, 1 << 20))
    backend = place.open_task(TaskId("in", 0), ["counts"], False)
    backend.apply({"counts": {b"k": b"v"}}, {"counts": 1}, {("in", 0): 1})
    backend.close()
    place.close()
    code = "print(json.dumps(tests.reach_the_limit(Path(sys.argv[1]))))"
    done = under(256, 256, code, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3_000:]
    refusals = json.loads(done.stdout)
    assert len(refusals) >= module.FIXED, "not every file was refused once"
    assert all("ulimit -n" in said and "disk" not in said for said in refusals)
    assert not list(tmp_path.glob("app/*/tasks/*/*.corrupt"))


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError(24, "Too many open files"), TooManyOpenFiles, "ulimit -n"),
        (
            Exception("IO error: While open a file for random read: x.sst: Too many open files"),
            TooManyOpenFiles,
            "ulimit",
        ),
        (
            Exception("Corruption: Can't access /000009.sst: IO error: Too many open files"),
            TooManyOpenFiles,
            "ulimit -n",
        ),
        (OSError(23, "Too many open files in system"), TooManyOpenFiles, "fs.file-max"),
        (Exception("IO error: No space left on device: While appending"), StateDirectoryFailed, "Make room"),
    ],
    ids=["of the process", "of RocksDB", "in RocksDB's check", "of the machine", "a full disk"],
)
def test_each_failure_of_the_machine_says_what_to_do(error: Exception, kind: type[Exception], says: str) -> None:
    found = failed(Path("db"), error)
    assert type(found) is kind
    assert says in str(found)
    assert not _is_corruption(error)
    assert isinstance(found, ConfigError) == (kind is TooManyOpenFiles)


class Told(KeptBackend):
    """Says when it is closed."""

    def __init__(self, task_id: TaskId, stores: Sequence[str], said: list[tuple[str, TaskId]]) -> None:
        super().__init__(stores)
        self._task_id = task_id
        self._said = said

    def begin_close(self) -> None:
        self._said.append(("begin", self._task_id))

    def close(self) -> None:
        self._said.append(("closed", self._task_id))
        super().close()


def _end(run: Run) -> None:
    run.workers.pop("w").close()


def _lose_all(run: Run) -> None:
    run.broker.expel("w")
    run.ticks()


@pytest.mark.parametrize("ending", [_end, _lose_all], ids=["at the end", "in a rebalance"])
def test_all_tasks_begin_to_close_before_the_first_is_waited_for(ending: Callable[[Run], None]) -> None:
    said: list[tuple[str, TaskId]] = []

    class ToldDisk(Disk):
        def open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> Backend:
            return Told(task_id, stores, said)

    run = Run(topology(), topics={"in": 3, "out": 1})
    run.app.disks["w"] = ToldDisk()
    run.ticks()
    tasks = set(run.worker.assignment.tasks)
    assert len(tasks) == 6
    ending(run)
    assert {what for what, _ in said[:6]} == {"begin"}
    assert {what for what, _ in said[6:]} == {"closed"}
    assert {task for _, task in said[:6]} == {task for _, task in said[6:]} == tasks


class Failing(Processor[str, str, str, str]):
    """Reads from a disk that cannot be read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def process(self, key: str, value: str) -> None:
        raise self._error


@pytest.mark.parametrize("error", [TooManyOpenFiles("at the limit"), StateDirectoryFailed("the disk fails")])
def test_no_error_policy_takes_the_machine_for_a_bad_record(error: Exception) -> None:
    made = Topology("t")
    stream = made.stream("in", key=serde.string(), value=serde.string(), on_error="continue")
    stream.process(lambda: Failing(error)).to("out", key=serde.string(), value=serde.string())
    run = Run(made)
    run.send(b"x")
    with pytest.raises(type(error), match=str(error)):
        run.ticks()
    run.workers.pop("w").close(commit=False)
    assert run.offset() is None, "the record was left out"


def test_tasks_that_may_not_fit_later_are_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (USUAL, USUAL))
    files = OpenFiles(200, stores=1)
    for tasks in (10, 80, 80, 85):
        files.expect([1] * tasks)
    told = [record.getMessage() for record in caplog.records]
    assert [said.split(",")[0] for said in told] == ["this process has 80 tasks", "this process has 85 tasks"]
    assert all("its limit is 1024" in said and "ulimit -n" in said for said in told)
    with pytest.raises(TooManyOpenFiles, match="200 tasks"):
        files.expect([1] * 200)


def test_a_few_of_many_tasks_leave_room_for_as_many_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (10_000, 10_000))
    files = OpenFiles(1_000, stores=1)
    files.expect([1] * 50)
    few = files.tables
    assert 2 * 50 * (few + module.FIXED + module.PER_STORE) < 10_000
    assert few > 50
    files.expect([1] * 100)
    assert module.LEAST_TABLES < files.tables < few
