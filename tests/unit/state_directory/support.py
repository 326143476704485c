"""Processes that share a state directory, for the tests of it."""

from __future__ import annotations

import os
from pathlib import Path

from streamstate.engine.task.task import TaskId
from streamstate.rocksdb.backend import Memory
from streamstate.rocksdb.directory import StateDirectory
from streamstate.state.backend import Backend

TASK = TaskId("lines", 0)
STORES = ("counts",)
OTHER_PROCESS = """
import sys
import time
from pathlib import Path
from streamstate.engine import TaskId
from streamstate.rocksdb.directory import StateDirectory

place = StateDirectory(Path(sys.argv[1]), "app", sys.argv[2] or None)
backend = place.open_task(TaskId("lines", 0), ["counts"], False)
backend.apply({"counts": {b"k": b"other"}}, {"counts": 5}, {})
print(place.process_id, flush=True)
sys.stdin.read()
"""


class Places:
    """Processes of this machine, in one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open: list[StateDirectory] = []
        self.memory = Memory(1 << 20, 1 << 20)

    def take(self, instance_id: str | None = None, application_id: str = "app") -> StateDirectory:
        place = StateDirectory(self.root, application_id, instance_id, self.memory)
        self.open.append(place)
        return place

    def leave(self, place: StateDirectory) -> None:
        self.open.remove(place)
        place.close()

    def die(self, place: StateDirectory) -> None:
        """What the operating system does for a process that is killed."""
        self.open.remove(place)
        os.close(place._lock)


def write(place: StateDirectory, value: bytes, *, keep_open: bool = False) -> Backend:
    backend = place.open_task(TASK, STORES, False)
    backend.apply({"counts": {b"k": value}}, {"counts": 1}, {})
    if not keep_open:
        backend.close()
    return backend


def read(place: StateDirectory, *, fresh: bool = False) -> bytes | None:
    backend = place.open_task(TASK, STORES, fresh)
    try:
        return backend.reader("counts")(b"k")
    finally:
        backend.close()


def copies(places: Places) -> list[str]:
    return sorted(str(path.relative_to(places.root)) for path in places.root.glob("app/*/tasks/*"))
