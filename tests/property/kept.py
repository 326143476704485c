"""One store over a backend in memory: commits, roll-backs, restarts; and a model that lives through the same."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st

from streamstate.state.backend import MemoryBackend
from streamstate.state.spec import StoreSpec
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import StagedStore
from streamstate.state.undo import rollback

S = TypeVar("S")
M = TypeVar("M")

INTERRUPTIONS = st.tuples(st.sampled_from(["seal", "seal", "commit", "commit", "discard", "reopen", "restore"]))


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
        # Of the commit under way: what is written, and what the model was when that was sealed.
        self._under_way: tuple[dict[bytes, bytes | None], M] | None = None
        self._changelog: dict[bytes, bytes | None] = {}
        self._start()

    def _start(self) -> None:
        self.backend = MemoryBackend([self._spec.name])
        self.backend.restore(self._spec.name, self._changelog, 0)
        self._open()

    def _open(self) -> None:
        self.staging = staged_store(self._spec, self.backend, 1_000, self.log, lambda: self.time)
        self.store = self._view(self.staging, lambda: self.time)

    def interrupt(self, what: str) -> None:
        """``seal`` a commit and go on beside it, ``commit`` and wait for its end, ``discard`` what is uncommitted,
        ``reopen`` the backend, or ``restore`` it from the changelog."""
        if what in ("seal", "commit"):
            self._seal()
            if what == "commit":
                self._settle()
        else:
            self._under_way = None
            if what == "discard":
                self.staging.discard()
                self.store = self._view(self.staging, lambda: self.time)
            elif what == "reopen":
                self._open()
            else:
                self._start()
            self.model = deepcopy(self._committed)

    def _seal(self) -> None:
        self._settle()
        writes = {}
        if self.staging.changed:
            self.staging.expire()
            writes = self.staging.seal()
        self._under_way = writes, deepcopy(self.model)

    def _settle(self) -> None:
        if self._under_way is None:
            return
        writes, self._committed = self._under_way
        self._under_way = None
        segments = self.staging.segments
        bound = {} if segments is None or not segments.bound else {self._spec.name: segments.bound}
        if writes or bound:
            self.backend.apply({self._spec.name: writes}, {}, {}, bound)
        self._changelog.update(writes)
        self.staging.committed()

    def fail(self, change: Callable[[S], object]) -> None:
        """A record that changes the store and fails."""
        if self.log is not None:
            self.log.clear()
            change(self.store)
            rollback(self.log)
            self.log.clear()

    def is_restored_alike(self) -> bool:
        """The changelog gives what the backend has."""
        self.interrupt("commit")
        restored = {key: value for key, value in self._changelog.items() if value is not None}
        return restored == dict(self.backend.scan(self._spec.name, None, None, False))
