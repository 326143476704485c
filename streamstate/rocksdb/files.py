"""How many files this process may have open, and how its tasks share them.

Rule of this module: it counts and divides; what it learns of the machine are the process' limit and what is open now.

A database holds some files open as long as it is open itself, and tables of entries up to a number that it is told.
A process with many tasks soon reaches the usual limit of 1,024. So the limit is raised as far as the machine allows,
and what does not fit is refused before the first database is opened: a process that meets the limit later ends in the
middle of its work.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Sequence
from typing import Final

from streamstate.errors import TooManyOpenFiles

log = logging.getLogger("streamstate.rocksdb")

# Of an open task: its directory twice, LOCK, LOG, MANIFEST and write-ahead log of its database, and its own lock.
FIXED: Final = 7
# And one more per store, for as long as its column family is new.
PER_STORE: Final = 1
# RocksDB keeps at least this many tables open before it closes one for another.
LEAST_TABLES: Final = 10
# More than that are no gain: of 64 MiB each, they are a task of 15 GiB.
MOST_TABLES: Final = 246
# What `max_open_files` counts besides tables.
RESERVED_BY_ROCKSDB: Final = 10
# Sockets and pipes of the Kafka clients, and what user code opens.
OTHERS: Final = 128


class OpenFiles:
    """This process' limit, and each task's part of it.

    Args:
        tasks: of the application, so that no process can get more.
        stores: most stores of a task.

    Attributes:
        limit: the soft limit now, after `raise_limit` perhaps.
        tables: how many tables each database that is opened next may hold open.
    """

    def __init__(self, tasks: int, stores: int) -> None:
        self._tasks = tasks
        self._stores = stores
        self._besides = len(os.listdir("/dev/fd")) + OTHERS
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.tables = MOST_TABLES
        self._warned_of = 0

    def raise_limit(self) -> None:
        """Raise the soft limit to what all tasks of the application could use here, as far as the hard limit allows."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self._besides + self._tasks * (FIXED + PER_STORE * self._stores + MOST_TABLES)
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError) as error:
            # Where the kernel has a limit of its own below the hard one, as on macOS.
            log.info("the limit on open files stays at %d, %d are refused: %s", soft, wanted, error)
        else:
            log.debug("the soft limit on open files was raised from %d to %d", soft, wanted)
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def expect(self, stores_of_tasks: Sequence[int]) -> None:
        """Divide the limit among the tasks that this process is about to hold.

        Args:
            stores_of_tasks: the number of stores of each.

        Raises:
            TooManyOpenFiles: they do not fit, whatever their stores hold.
        """
        tasks = len(stores_of_tasks)
        if not tasks or self.limit == resource.RLIM_INFINITY:
            return
        always = sum(FIXED + PER_STORE * stores for stores in stores_of_tasks)
        # A table for each column family: each has one as soon as it was closed with anything in it.
        least = self._besides + always + tasks
        if least > self.limit:
            raise TooManyOpenFiles(_too_few(tasks, least, self.limit))
        # Others may come: a process gets twice as many when one of two ends.
        room = (self.limit - self._besides) // min(max(self._tasks, tasks), 2 * tasks) - always // tasks
        self.tables = max(LEAST_TABLES, min(room, MOST_TABLES))
        comfortable = self._besides + always + tasks * LEAST_TABLES
        if comfortable > self.limit and tasks > self._warned_of:
            # Not with every turn in which one of them still waits.
            self._warned_of = tasks
            log.warning(
                "this process has %d tasks, which hold %d files open or more as their stores grow; its limit is %d. "
                "Raise it to be safe: ulimit -n %d",
                tasks,
                comfortable,
                self.limit,
                comfortable,
            )


def _too_few(tasks: int, needed: int, limit: int) -> str:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    above = "" if hard == resource.RLIM_INFINITY else f", which may be raised to {hard} at most"
    return (
        f"this process has {tasks} tasks, which need at least {needed} open files; its limit is {limit}{above}. "
        f"{_raise_to(needed)}: each process has a limit of its own"
    )


def _raise_to(files: int) -> str:
    return (
        f"Raise it with 'ulimit -n {files}' before the start (LimitNOFILE= of systemd, --ulimit nofile= of Docker), or "
        f"start more processes, which share the tasks"
    )


def limit_reached(error: Exception) -> str:
    """What to say when this error means that no more files can be opened; empty for all others.

    >>> limit_reached(OSError(errno.ENOSPC, "No space left on device"))
    ''
    """
    if isinstance(error, OSError):
        process, system = error.errno == errno.EMFILE, error.errno == errno.ENFILE
    else:
        # RocksDB has only words, those of the operating system.
        said = str(error)
        system = os.strerror(errno.ENFILE) in said
        process = os.strerror(errno.EMFILE) in said and not system
    if process:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"this process has reached its limit on open files, {soft} (hard limit {hard}). {_raise_to(2 * soft)}"
    if system:
        return "this machine has reached its limit on open files of all processes: raise it with 'sysctl fs.file-max'"
    return ""
