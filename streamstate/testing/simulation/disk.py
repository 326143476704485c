"""State directories that can lose what was written last.

Rule of this module: every write is one step that is there or not, as RocksDB's write batches are; what a crash
takes away are whole steps, newest first. What was restored is kept with the next ``apply`` or when it is closed; before
that, every crash takes its positions, and of some tasks its entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamstate.engine.task.task import TaskId
from streamstate.state.backend import NO_FACTS, NOTHING_EXPIRED, Backend, InputPartition, Writes
from streamstate.testing.memory_broker.application import Disk, KeptBackend

__all__ = ["DiskFailure", "SimulatedBackend", "SimulatedDisk"]

# (virtual ms, entries before by store, positions, offsets and facts before)
Step = tuple[int, dict[str, dict[bytes, bytes | None]], dict[str, int], dict[InputPartition, int], dict[str, str]]

Hook = Callable[[str, str], None]


class DiskFailure(OSError):
    """The simulated disk does not take a write."""


class SimulatedBackend(KeptBackend):
    """A backend that outlives its task and can be taken back step by step.

    Args:
        stores: names.
        now_ms: the run's time.
        hook: told of each write as of a port call: (``disk.apply`` and the like, phase).
    """

    def __init__(self, stores: Sequence[str], now_ms: Callable[[], int], hook: Hook) -> None:
        super().__init__(stores)
        self._now_ms = now_ms
        self._hook = hook
        self._steps: list[Step] = []
        # How many of them are kept, whatever was restored since.
        self._kept = 0

    def apply(
        self,
        writes: Writes,
        positions: Mapping[str, int],
        offsets: Mapping[InputPartition, int],
        expired_below: Mapping[str, bytes] = NOTHING_EXPIRED,
        *,
        current: bool = True,
        facts: Mapping[str, str] = NO_FACTS,
    ) -> None:
        self._hook("disk.apply", "before")
        touched = {store: list(entries) for store, entries in writes.items()}
        for store, bound in expired_below.items():
            touched.setdefault(store, []).extend(key for key in self._data[store] if key < bound)
        self._remember(touched)
        super().apply(writes, positions, offsets, expired_below, current=current, facts=facts)
        self._kept = len(self._steps)
        self._hook("disk.apply", "after")

    def restore(
        self, store: str, records: Mapping[bytes, bytes | None], position: int, *, complete: bool = False
    ) -> None:
        self._hook("disk.restore", "before")
        self._remember({store: list(records)})
        super().restore(store, records, position, complete=complete)
        self._hook("disk.restore", "after")

    def clear(self, store: str) -> None:
        self._remember({store: list(self._data[store])})
        super().clear(store)

    def note(self, facts: Mapping[str, str]) -> None:
        self._remember({})
        super().note(facts)

    def close(self) -> None:
        """Its data is kept by the disk."""
        super().close()
        self._kept = len(self._steps)

    def lose_restored(self, entries: bool) -> None:
        """Lose what was restored and is not kept: its positions, or its entries too."""
        if entries:
            self.take_back(len(self._steps) - self._kept)
        self.killed()
        self._kept = len(self._steps)

    def _remember(self, touched: Mapping[str, Sequence[bytes]]) -> None:
        before = {store: {key: self._data[store].get(key) for key in keys} for store, keys in touched.items()}
        self._steps.append((self._now_ms(), before, dict(self._positions), dict(self._offsets), dict(self._facts)))

    def take_back(self, steps: int) -> None:
        """Lose the newest ``steps`` writes."""
        for _ in range(min(steps, len(self._steps))):
            _, before, self._positions, self._offsets, self._facts = self._steps.pop()
            for store, entries in before.items():
                for key, value in entries.items():
                    self._set(store, key, value)
        if len(self._steps) < self._kept:
            # All that was restored behind it is gone as well.
            self._kept = len(self._steps)
            self._before.clear()

    def take_back_to(self, moment_ms: int) -> None:
        """Lose every write after ``moment_ms``."""
        self.take_back(sum(1 for step in self._steps if step[0] > moment_ms))


class SimulatedDisk(Disk):
    """The state directory of one worker.

    Args:
        now_ms: the run's time.
        hook: see ``SimulatedBackend``.
    """

    def __init__(self, now_ms: Callable[[], int], hook: Hook) -> None:
        super().__init__()
        self._now_ms = now_ms
        self._hook = hook
        self._kept: dict[TaskId, SimulatedBackend] = {}

    def open(self, task_id: TaskId, stores: Sequence[str], fresh: bool) -> Backend:
        """The task's backend, with what it held before."""
        self._hook("disk.open", "before")
        backend = self._kept.get(task_id)
        if backend is None:
            backend = self._kept[task_id] = SimulatedBackend(stores, self._now_ms, self._hook)
        backend.hold(stores)
        self._hook("disk.open", "after")
        return backend

    def crashed(self, leaves: str, moment_ms: int) -> None:
        """What is left after a crash: everything (``kept``), nothing (``lost``), a copy of ``moment_ms`` (``older``),
        or all but the newest writes of each task (``torn``); and nothing of a restore that was not kept."""
        if leaves == "lost":
            self._kept.clear()
        for number, backend in enumerate(self._kept.values()):
            if leaves == "older":
                backend.take_back_to(moment_ms)
            elif leaves == "torn":
                backend.take_back(1 + number % 3)
            backend.lose_restored(bool(number % 2))
