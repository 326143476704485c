"""One sub-topology's chain of closures over staging and a backend, with commits, crashes and restores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate import Topology
from streamstate.operators.base.context import NO_LIMIT_MS, TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.compile import compile_task
from streamstate.state.backend import MemoryBackend
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import StagedStore
from streamstate.state.undo import UndoLog, rollback

Sent = tuple[Any, Any, int]


class Chain:
    """Runs the topology's only sub-topology.

    Args:
        topology: with one sub-topology.
        undoing: keep an undo log, as under an error policy.
        cache_bytes: of each store.

    Attributes:
        changelogs: newest value by key, by store; None is a tombstone.
    """

    def __init__(self, topology: Topology, *, undoing: bool = False, cache_bytes: int = 1 << 20) -> None:
        self.graph = topology.build()
        [self.part] = self.graph.subtopologies
        self.backend = MemoryBackend(self.part.stores)
        self.changelogs: dict[str, dict[bytes, bytes | None]] = {name: {} for name in self.part.stores}
        self.undo: UndoLog | None = [] if undoing else None
        self._cache_bytes = cache_bytes
        self.now_ms = 0
        self._open()

    def _open(self) -> None:
        self._sealed: dict[str, dict[bytes, bytes | None]] = {}
        self._under_way = False
        self.context = TaskContext("app", "t_0", lambda: self.now_ms, lambda topic: [NO_LIMIT_MS, NO_LIMIT_MS, 0])
        self.stores: dict[str, StagedStore] = {
            name: staged_store(self.graph.stores[name], self.backend, self._cache_bytes, self.undo)
            for name in self.part.stores
        }
        self.compiled = compile_task(self.graph, self.part, self.context, self.stores, self.undo)

    def send(self, topic: str, key: Any, value: Any, timestamp: int) -> bool:
        """One record through the chain; false when it failed, and was taken back."""
        if self.undo is not None:
            self.undo.clear()
        mark = len(self.context.outputs)
        try:
            self.compiled.sources[topic].forward(key, value, timestamp)
        except OperatorFailed:
            assert self.undo is not None, "failed without an undo log"
            del self.context.outputs[mark:]
            rollback(self.undo)
            return False
        return True

    def taken(self, topic: str, decode_key: Callable[[bytes], Any], decode_value: Callable[[bytes], Any]) -> list[Sent]:
        """What was sent since the last time."""
        found: list[Sent] = []
        for name, value, key, _, _, timestamp, _ in self.context.outputs:
            assert name == topic
            assert timestamp is not None
            found.append(
                (None if key is None else decode_key(key), None if value is None else decode_value(value), timestamp)
            )
        self.context.outputs.clear()
        return found

    def seal(self) -> None:
        """Begin a commit as the worker does, once the one before it has ended: what is sent from here on belongs to the
        next."""
        self.settle()
        for emitter in self.compiled.commit_emitters:
            for _, arguments in emitter.take():
                emitter.forward(*arguments)
        for name, store in self.stores.items():
            if store.changed:
                store.expire()
                self._sealed[name] = store.seal()
        self._under_way = True

    def settle(self) -> None:
        """The commit under way, if there is one, has ended well."""
        if not self._under_way:
            return
        bounds = {
            name: store.segments.bound
            for name, store in self.stores.items()
            if store.segments is not None and store.segments.bound
        }
        for name, entries in self._sealed.items():
            self.changelogs[name].update(entries)
        self.backend.apply(self._sealed, {}, {}, bounds)
        for store in self.stores.values():
            store.committed()
        self._sealed = {}
        self._under_way = False

    def commit(self) -> None:
        """A commit from its beginning to its end."""
        self.seal()
        self.settle()

    def crash(self) -> None:
        """Drop what is not committed; local state is kept."""
        self._open()

    def discard(self) -> None:
        """Drop what is not committed, with the stores left open."""
        for store in self.stores.values():
            store.discard()
        self._sealed, self._under_way = {}, False
        self.compiled = compile_task(self.graph, self.part, self.context, self.stores, self.undo)

    def restore(self) -> None:
        """Drop what is not committed and all local state; replay the changelogs."""
        self.backend = MemoryBackend(self.part.stores)
        for name, entries in self.changelogs.items():
            self.backend.restore(name, entries, 1)
        self._open()

    def content(self, store: str) -> dict[bytes, bytes]:
        """Committed entries, as bytes."""
        return dict(self.backend.scan(store, None, None, False))

    def replayed(self, store: str) -> dict[bytes, bytes]:
        """What a replay of the changelog gives."""
        return {key: value for key, value in self.changelogs[store].items() if value is not None}
