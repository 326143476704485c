"""State on RocksDB for a test, in a directory of its own.

Rule of this module: no locks and no identity; whoever made the directory is the only one who uses it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from streamstate.engine.task.task import TaskId
from streamstate.rocksdb.backend import Memory, RocksBackend

__all__ = ["RocksDisk"]


class RocksDisk:
    """Gives ``streamstate.testing.TopologyTestDriver(disk=...)`` state in RocksDB instead of memory.

    Args:
        path: a directory for one driver, such as pytest's ``tmp_path``; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory = Memory(8 << 20, 8 << 20)

    def open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> RocksBackend:
        """The task's backend, with what it held before."""
        return RocksBackend(self._path / str(task_id) / "db", stores, self._memory)

    def lose(self) -> None:
        """Delete everything, as a machine does that does not come back."""
        shutil.rmtree(self._path, ignore_errors=True)
