"""For all tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.broker_support import RUN, RUNNING

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a job that a shell has put into the background; the processes that tests start would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Examples are judged by what they compute: on a busy machine any of them may take its time.
settings.register_profile("streamstate", deadline=None)
settings.load_profile("streamstate")

# The lock that tells brokers which all tests share that this run goes on; in its first process only.
RUN_LOCK = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """The first process of a run makes the place where its processes find the brokers that they share."""
    if RUN in os.environ:
        return
    place = Path(tempfile.mkdtemp(prefix="streamstate-tests-"))
    config.stash[RUN_LOCK] = lock = os.open(place / RUNNING, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.environ[RUN] = str(place)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The run is over: let go of the brokers, and wait until they have stopped."""
    lock = config.stash.get(RUN_LOCK, None)
    if lock is None:
        return
    place = Path(os.environ.pop(RUN))
    os.close(lock)
    for alive in place.glob("*.alive"):
        with alive.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    shutil.rmtree(place, ignore_errors=True)


# Tests on a broker mostly wait, and each has an application of its own: any process may run any of them. Those of a
# file that share more than the broker stay together, as do those of all other files.
APART = ("tests/integration/", "tests/contract/")
TOGETHER = (
    # What a suite leaves behind is looked for on the whole broker and machine.
    "tests/integration/test_benchmarks.py",
    # Cases use the same topics.
    "tests/integration/test_conformance.py",
    # They share a broker that they kill.
    "tests/integration/test_outage.py",
)
# The longest files, each of which one process runs: begun last, they would be waited for alone.
FIRST = ("tests/topologies/test_against_sql.py", "tests/unit/test_windows_of_2013.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


class Scheduling(LoadScopeScheduling):
    """Which tests go to a process together, under ``--dist loadscope``."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file.startswith(APART) and file not in TOGETHER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Ours in place of one process for each module or class."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None
