"""One store over a backend in memory: commits, roll-backs, restarts; and a model that lives through the same."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st

from streamstate.state import MemoryBackend, StagedStore, rollback, staged_store
from streamstate.store_spec import StoreSpec

S = TypeVar("S")
M = TypeVar("M")

INTERRUPTIONS = st.tuples(st.sampled_from(["commit", "discard", "reopen", "restore"]))


class Kept(Generic[S, M]):
    """See the module.

    Args:
        spec: of the store.
        view: makes of the overlay what is tested.
        model: what the store should be, while it is empty.
        undo: keep an undo log, as under an error policy.

    Attributes:
        store: what is tested.
        model: what it should be.
        time: what the store takes as the event time of the record in hand.
    """

    def __init__(self, spec: StoreSpec, view: Callable[[StagedStore, Callable[[], int]], S], model: M, undo: bool):
        self._spec, self._view = spec, view
        self.log: Any = [] if undo else None
        self.time = 0
        self.model, self._committed = model, deepcopy(model)
        self._changelog: dict[bytes, bytes | None] = {}
        self._start()

    def _start(self) -> None:
        self.backend = MemoryBackend([self._spec.name])
        self.backend.restore(self._spec.name, list(self._changelog.items()), 0)
        self._open()

    def _open(self) -> None:
        self.staging = staged_store(self._spec, self.backend, 1_000, self.log, lambda: self.time)
        self.store = self._view(self.staging, lambda: self.time)

    def interrupt(self, what: str) -> None:
        """``commit``, ``discard`` what is uncommitted, ``reopen`` the backend, or ``restore`` it from the changelog."""
        if what == "commit":
            self._commit()
        else:
            if what == "discard":
                self.staging.discard()
                self.store = self._view(self.staging, lambda: self.time)
            elif what == "reopen":
                self._open()
            else:
                self._start()
            self.model = deepcopy(self._committed)

    def _commit(self) -> None:
        if self.staging.changed:
            self.staging.expire()
            sealed = self.staging.seal()
            segments = self.staging.segments
            bound = {} if segments is None or not segments.bound else {self._spec.name: segments.bound}
            self.backend.apply({self._spec.name: sealed}, {}, {}, bound)
            self._changelog.update(sealed)
        self.staging.committed()
        self._committed = deepcopy(self.model)

    def fail(self, change: Callable[[S], object]) -> None:
        """A record that changes the store and fails."""
        if self.log is not None:
            self.log.clear()
            change(self.store)
            rollback(self.log)
            self.log.clear()

    def is_restored_alike(self) -> bool:
        """The changelog gives what the backend has."""
        self._commit()
        restored = {key: value for key, value in self._changelog.items() if value is not None}
        return restored == dict(self.backend.scan(self._spec.name, None, None, False))
