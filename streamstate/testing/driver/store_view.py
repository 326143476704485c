"""Read the stores of a task from outside.

Rule of this module: reading changes nothing. What a test sees is what a Processor would see, or, of the committed state
only, what a restored one would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from typing import Any

from streamstate.engine.task.task import Task
from streamstate.state.spec import StoreSpec
from streamstate.state.staged_stores import staged_store
from streamstate.state.typed_stores import AnyStore, typed_store

__all__ = ["StoreView", "task_store"]


def task_store(task: Task, name: str, committed: bool) -> AnyStore:
    """The store of one task, typed.

    Args:
        task: has it.
        name: of the store.
        committed: leave out what is staged.
    """
    staged, context = task.stores[name], task.context
    if committed:
        assert task.backend is not None, "a task with stores has a backend"
        staged = staged_store(staged.spec, task.backend, 0, stream_time=lambda: context.stream_time)
    return typed_store(staged, lambda: max(0, context.stream_time))


class StoreView:
    """A key-value store over all its partitions, to be read.

    Args:
        name: of the store.
        spec: of the store.
        partitions: what each holds.
    """

    def __init__(self, name: str, spec: StoreSpec, partitions: Mapping[int, Any]) -> None:
        self._name = name
        self._encode = spec.key.serialize
        self._partitions = partitions

    def __repr__(self) -> str:
        return f"<StoreView {self._name}, partitions {', '.join(map(str, self._partitions))}>"

    def get(self, key: Any, **options: Any) -> Any:
        """The value of ``key`` in whichever partition has it, or None.

        Args:
            key: to look up.
            options: of the store's own ``get``, such as ``as_of`` of a versioned one.
        """
        for store in self._partitions.values():
            value = store.get(key, **options)
            if value is not None:
                return value
        return None

    def partition_of(self, key: Any) -> int | None:
        """The partition that has ``key``, or None."""
        return next((number for number, store in self._partitions.items() if store.get(key) is not None), None)

    def range(self, start: Any = None, end: Any = None, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """Entries from ``start`` to ``end``, both inclusive, by the bytes of their keys."""
        return self._merged([s.range(start, end, reverse=reverse) for s in self._partitions.values()], reverse)

    def prefix_scan(self, prefix: bytes, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """Entries whose serialized key starts with ``prefix``."""
        return self._merged([s.prefix_scan(prefix, reverse=reverse) for s in self._partitions.values()], reverse)

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """Every entry, by the bytes of its key."""
        return self._merged([s.all(reverse=reverse) for s in self._partitions.values()], reverse)

    def _merged(self, entries: list[Iterator[tuple[Any, Any]]], reverse: bool) -> Iterator[tuple[Any, Any]]:
        return merge(*entries, key=lambda entry: self._encode(entry[0]), reverse=reverse)
