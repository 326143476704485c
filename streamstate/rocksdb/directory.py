"""The state directory: who this process is, and which task's state it may open.

``STATE_DIR/APPLICATION/process-N/`` belongs to one live process at a time. ``process.json`` keeps its process id, from
which the transactional id is made. A new process takes the place of one that died before any other free one: it takes
its id, and at once aborts the transaction that one left open. ``tasks/TASK/`` holds a task's database. When a task
moves between processes of one machine, its directory moves with it, so that little has to be restored.

Rule of this module: locks are the operating system's (flock), so a killed process holds none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from streamstate.engine.ports import Retriable
from streamstate.engine.task.task import TaskId
from streamstate.errors import ConfigError, StateDirectoryLocked, TaskCorrupted
from streamstate.rocksdb.backend import Memory, RocksBackend, failed, set_aside
from streamstate.rocksdb.files import OpenFiles
from streamstate.state.backend import StateDamaged

log = logging.getLogger("streamstate.rocksdb")

FORMAT = 1
# Changelogs keep tombstones for seven days: a copy that was last current before that may hold keys whose deletion
# can no longer be replayed. A day less leaves room for clocks that differ.
USABLE_S = 6 * 24 * 60 * 60
MAX_PROCESSES = 1_000
# Of a task's directory on its way out; no task is called that.
TRASH = ".deleted-"
# A file that is there while a place is in use, and stays when its process dies.
IN_USE = "in-use"
# A file beside a task's database whose time is that of the database's last change. The lock's is that of its last use:
# where a process is killed, the time at which it opened the copy.
WRITTEN = "written"


class StateDirectory:
    """This process's place in the state directory; locked until ``close``.

    Args:
        root: the state directory, shared by any number of applications and processes of this machine.
        application_id: of the application.
        instance_id: a place of its own name instead of a numbered one.
        memory: shared by the databases.
        usable_s: how long after it was current a local copy may be used: less than its changelogs keep tombstones.
        files: the process' limit on open files; None: as it is.

    Attributes:
        process_id: stable over restarts.
        path: this process's directory.

    Raises:
        StateDirectoryLocked: another process holds the place named ``instance_id``.
        TaskCorrupted: it was written by a newer version or for another application.
    """

    def __init__(
        self,
        root: Path,
        application_id: str,
        instance_id: str | None = None,
        memory: Memory | None = None,
        usable_s: float = USABLE_S,
        files: OpenFiles | None = None,
    ) -> None:
        self._usable_s = usable_s
        self._files = files
        self._application = root / application_id
        self._memory = memory or Memory()
        self._since_s = time.time()
        with _usable(self._application):
            self._application.mkdir(parents=True, exist_ok=True)
            self.path, self._lock = self._take(instance_id)
            try:
                self.process_id = self._identity(application_id)
                (self.path / IN_USE).write_text("until this process ends in order\n")
            except BaseException:
                os.close(self._lock)
                raise

    def _take(self, instance_id: str | None) -> tuple[Path, int]:
        if instance_id is not None:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", instance_id):
                raise ConfigError(f"the instance id {instance_id!r} may hold letters, digits, '.', '_' and '-' only")
            path = self._application / f"process-{instance_id}"
            lock = try_lock(path)
            if lock is None:
                raise StateDirectoryLocked(
                    f"another live process uses {path}; give this one its own --instance-id or its own --state-dir"
                )
            return path, lock
        for path in (*self._left_by_the_dead(), *(self._numbered(number) for number in range(MAX_PROCESSES))):
            lock = try_lock(path)
            if lock is not None:
                return path, lock
        raise StateDirectoryLocked(f"all {MAX_PROCESSES} places in {self._application} are taken; use --state-dir")

    def _numbered(self, number: int) -> Path:
        return self._application / f"process-{number}"

    def _left_by_the_dead(self) -> list[Path]:
        """Numbered places whose processes did not end in order, or still run; those that were taken last first."""
        taken_ns: dict[Path, int] = {}
        for mark in self._application.glob(f"process-*/{IN_USE}"):
            # Its process may end in order at this moment.
            with contextlib.suppress(FileNotFoundError):
                if re.fullmatch(r"process-\d+", mark.parent.name):
                    taken_ns[mark.parent] = mark.stat().st_mtime_ns
        return sorted(taken_ns, key=taken_ns.__getitem__, reverse=True)

    def _identity(self, application_id: str) -> str:
        file = self.path / "process.json"
        try:
            known = json.loads(file.read_text())
            if not isinstance(known, dict) or "process_id" not in known:
                raise ValueError("it names no process")
        except FileNotFoundError:
            known = {"format": FORMAT, "application_id": application_id, "process_id": uuid.uuid4().hex[:12]}
            draft = file.with_suffix(".draft")
            draft.write_text(json.dumps(known))
            draft.replace(file)
        except ValueError as error:
            raise TaskCorrupted(
                f"{file} cannot be read ({error}); delete {self.path} to restore from changelogs"
            ) from None
        if known.get("format") != FORMAT or known.get("application_id") != application_id:
            raise TaskCorrupted(
                f"{file} is of application {known.get('application_id')!r}, format {known.get('format')}, not of "
                f"{application_id!r}, format {FORMAT}; use another --state-dir"
            )
        return str(known["process_id"])

    def expect(self, stores_of_tasks: Sequence[int]) -> None:
        """Divide what the databases share among the tasks that this process is about to hold.

        Args:
            stores_of_tasks: the number of stores of each.

        Raises:
            TooManyOpenFiles: they need more files than this process may have open.
        """
        if self._files is not None:
            self._files.expect(stores_of_tasks)
            self._memory.share(len(stores_of_tasks), self._files.tables)

    def open_task(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> RocksBackend:
        """Open a task's state, taking over the newest copy on this machine.

        Args:
            task_id: the task.
            stores: its stores' names.
            fresh: go on with this process's own copy, or none, although another process still holds one.

        Raises:
            Retriable: another process still holds the task's directory.
            StateDirectoryFailed: a full disk, missing rights, a failing device.
            TooManyOpenFiles: this process has reached its limit on open files.
        """
        with _usable(self.path):
            return self._open_task(task_id, stores, fresh)

    def _open_task(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> RocksBackend:
        mine = self.path / "tasks" / str(task_id)
        best, lock = self._newest(mine, str(task_id), fresh)
        if best is not None and best != mine:
            # The older copy of our own is of no use beside it.
            shutil.rmtree(mine, ignore_errors=True)
            mine.parent.mkdir(parents=True, exist_ok=True)
            best.rename(mine)
        elif lock is None:
            lock = try_lock(mine)
            if lock is None:
                raise Retriable(f"{mine} is still held")
        assert lock is not None, "a directory without its lock"
        held = lock
        os.utime(mine / "lock")

        def release() -> None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(mine / "lock")
            os.close(held)

        mark = mine / WRITTEN

        def written() -> None:
            try:
                os.utime(mark)
            except FileNotFoundError:
                mark.touch()

        try:
            return self._opened(mine / "db", stores, release, written)
        except BaseException:
            os.close(held)
            raise

    def _newest(self, mine: Path, task: str, fresh: bool) -> tuple[Path | None, int | None]:
        """The copy that was changed last and its lock; (None, None) when there is none."""
        best: Path | None = None
        best_lock: int | None = None
        best_ns = -1
        for path in sorted(self._application.glob(f"process-*/tasks/{task}")):
            lock = try_lock(path, create=False)
            if lock is None:
                if path == mine or fresh or not (path / "lock").exists():
                    continue
                if best_lock is not None:
                    os.close(best_lock)
                raise Retriable(f"the state in {path} is still held by another process")
            changed_ns = _changed_ns(path)
            if changed_ns > best_ns:
                if best_lock is not None:
                    os.close(best_lock)
                best, best_lock, best_ns = path, lock, changed_ns
            else:
                os.close(lock)
        return best, best_lock

    def _opened(
        self, path: Path, stores: Sequence[str], release: Callable[[], None], written: Callable[[], None]
    ) -> RocksBackend:
        try:
            return RocksBackend(path, stores, self._memory, release, written, self._usable_s)
        except StateDamaged as damage:
            log.warning("%s", damage)
            set_aside(path)
            return RocksBackend(path, stores, self._memory, release, written, self._usable_s)

    def clean(self, delay_s: float) -> list[Path]:
        """Delete the state of tasks that nobody on this machine has held for a while: they live on other machines now,
        and what is here only gets older.

        A directory that a live process holds is never touched. Time counts from the later of its last use and the
        start of this process, so that nothing is deleted before tasks could be assigned.

        Args:
            delay_s: how long, in seconds.

        Returns:
            What was deleted.
        """
        deleted = []
        for path in sorted(self._application.glob("process-*/tasks/*")):
            if path.name.startswith(TRASH):
                # Left by a process that was killed while it deleted.
                shutil.rmtree(path, ignore_errors=True)
                continue
            lock = try_lock(path, create=False)
            if lock is None:
                continue
            try:
                if time.time() - max(os.fstat(lock).st_mtime, self._since_s) >= delay_s:
                    # Renamed first: a process that wants the task meanwhile makes a directory of its own.
                    trash = path.with_name(f"{TRASH}{path.name}-{uuid.uuid4().hex[:8]}")
                    path.rename(trash)
                    shutil.rmtree(trash, ignore_errors=True)
                    deleted.append(path)
                    log.info("deleted %s: its task has been elsewhere for %.0f s or longer", path, delay_s)
            finally:
                os.close(lock)
        return deleted

    def close(self, *, in_order: bool = True) -> None:
        """Give the place up.

        Args:
            in_order: whether nothing of this process' transactions can be left open.
        """
        if in_order:
            # On a disk that takes no changes the mark stays, which does no harm.
            with contextlib.suppress(OSError):
                (self.path / IN_USE).unlink()
        self._memory.end()
        os.close(self._lock)


def _changed_ns(copy: Path) -> int:
    """When a task's copy was last written to; 0 when nothing ever was."""
    try:
        return (copy / WRITTEN).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failed(path, error) from error


def try_lock(directory: Path, *, create: bool = True) -> int | None:
    """Lock ``directory`` for this process.

    Args:
        directory: what to lock, by a file ``lock`` in it.
        create: make it when missing.

    Returns:
        The open file that holds the lock, or None when it is held or missing.
    """
    if create:
        directory.mkdir(parents=True, exist_ok=True)
    file = directory / "lock"
    try:
        lock = os.open(file, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have moved the directory away between the two calls.
        if os.stat(file).st_ino == os.fstat(lock).st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None
