"""For all tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For ``--dist loadgroup``: tests of a file go to one process, but for those on a broker. These mostly wait, and
    each has an application of its own; a file of which that is not so names its group."""
    for item in items:
        if not any(item.iter_markers("broker")) and not any(item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
