"""Check how a task's stores were written before it starts, and write their marks with its first commit.

No entry is read under another layout than the one it was written in. Every store gets its mark with the first commit of
its task, in the changelog too. Changes at the start, such as a missing index, are part of that commit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from streamstate.engine.task.store_marks import (
    MARK_KEY,
    StoreMark,
    added_and_removed,
    describe_changes,
    mark_fact,
    mark_of,
    reconcile,
)
from streamstate.errors import ProcessingError, TopologyError
from streamstate.state.backend import Backend
from streamstate.state.entry_format import HEADER_BYTES
from streamstate.state.spec import StoreSpec
from streamstate.state.staging import StagedStore
from streamstate.state.undo import UndoLog
from streamstate.state.window_index import NO_TIME
from streamstate.windows.keys import INDEX_MARK, TIME_KEY

log = logging.getLogger("streamstate.task")

# In the message to a process that must not use a store of a later topology.
NEWER: Final = "from a process of this application that was started later with another topology"
# Under which versions without marks kept the kind of a store that is not of plain entries.
OLD_MARK_KEY: Final = b"\xff" * 12


class StoreLayoutCheck:
    """Checks the marks of a task's stores, and seals writes together with new marks.

    Args:
        task_id: of the task, for errors.
        known: marks of the application's stores when this process started; None: not looked at.
    """

    __slots__ = ("_known", "_pending", "_task_id", "_unindexed")

    def __init__(self, task_id: str, known: Mapping[str, tuple[StoreMark, ...]] | None = None) -> None:
        self._task_id = task_id
        self._known = known
        # Marks to be written with the next commit.
        self._pending: dict[str, bytes] = {}
        # Stores whose index by time has to be built.
        self._unindexed: set[str] = set()

    def adopt(
        self, specs: Mapping[str, StoreSpec], stores: Mapping[str, StagedStore], backend: Backend
    ) -> dict[str, StoreSpec]:
        """Check the stores of a task that starts against the topology.

        Args:
            specs: of the task's stores, as the topology has them.
            stores: these stores, as they are now.
            backend: below them.

        Returns:
            The specs to go on with, of the stores where these are not the topology's.

        Raises:
            TopologyError: a store holds entries that the topology cannot go on with.
        """
        self._pending.clear()
        self._unindexed.clear()
        facts = backend.facts()
        changed: dict[str, StoreSpec] = {}
        for name, store in stores.items():
            spec, text = specs[name], facts.get(mark_fact(name))
            if text is None:
                self._check_unmarked(spec, backend)
                self._pending[name] = mark_of(spec).text().encode()
                continue
            stored = StoreMark.parsed(name, text)
            if spec.reuse:
                # Made anew from its topic before, if it was another one.
                going_on, mark = spec, mark_of(spec)
            else:
                self._refuse_newer(name, spec, stored)
                seen_ms = NO_TIME if store.segments is None else store.segments.clock[TIME_KEY]
                going_on, mark = reconcile(spec, stored, seen_ms)
            if going_on is not spec:
                changed[name] = going_on
            if mark != stored or (self._known is not None and name not in self._known):
                # Also where the metadata topic has lost it.
                self._pending[name] = mark.text().encode()
                added, removed = added_and_removed(stored, mark)
                if added or removed:
                    log.warning("task %s: store %r: %s", self._task_id, name, describe_changes(added, removed))
            if mark.index == "kept" and stored.index != "kept":
                self._unindexed.add(name)
        return changed

    def _check_unmarked(self, spec: StoreSpec, backend: Backend) -> None:
        """Check a store without a mark: it is new, or a version without marks wrote it."""
        if next(backend.scan(spec.name, None, None, False), None) is None:
            return
        stored = backend.reader(spec.name)(OLD_MARK_KEY)
        found = "" if stored is None else stored[HEADER_BYTES:].decode()
        wanted = spec.kind if spec.kind != "key_value" else "" if spec.ttl_ms is None else "ttl"
        if found != wanted:
            raise TopologyError(
                f"store {spec.name!r} holds entries of the kind {_kind(found)}, and the topology now says "
                f"{_kind(wanted)}, which are laid out in another way: give the changed store another name, or start "
                f"over with 'streamstate reset'"
            )
        log.warning(
            "task %s: store %r was written by a version of streamstate that did not say how. From now on its mark says "
            "what the topology says: %s, keys %s, values %s",
            self._task_id,
            spec.name,
            spec.content,
            spec.key.identity,
            spec.value.identity,
        )

    def _refuse_newer(self, name: str, spec: StoreSpec, stored: StoreMark) -> None:
        """Refuse a store whose ready aggregates were changed by a process that was started after this one."""
        if not stored.aggregates or stored.aggregates[-1] == spec.aggregates or self._known is None:
            return
        if not any(stored.aggregates[-1] in known.aggregates for known in self._known.get(name, ())):
            names = ", ".join(aggregate for aggregate, _ in stored.aggregates[-1])
            raise TopologyError(
                f"task {self._task_id}: store {name!r} has the ready aggregates {names}, {NEWER}. Stop the processes "
                f"that run the earlier topology; this one ends. If the metadata topic was deleted, start once with "
                f"these aggregates"
            )

    def build_indexes(self, stores: Mapping[str, StagedStore], backend: Backend, undo: UndoLog | None) -> None:
        """Build the missing indexes by time and stage them for the first commit."""
        for name in self._unindexed:
            store = stores[name]
            index_of, segments = store.spec.index_of, store.segments
            assert index_of is not None, "an index that cannot be built"
            assert segments is not None, "an index without times"
            entries = 0
            for key, _ in backend.scan(name, None, TIME_KEY, False):
                if key[8:12] != INDEX_MARK:
                    segments.add_to_index(*index_of(key))
                    entries += 1
            if undo is not None:
                undo.clear()
            log.info("task %s: store %r: its index by time is built of %d windows", self._task_id, name, entries)
        self._unindexed.clear()

    def seal(self, stores: Mapping[str, StagedStore]) -> dict[str, dict[bytes, bytes | None]]:
        """Return staged writes by store, encoded, as those of a commit; stores without any are left out. New marks
        are among them, under ``MARK_KEY``.

        Raises:
            ProcessingError: a value cannot be encoded, or a key is that of the mark.
        """
        writes = {}
        for name, store in stores.items():
            sealed = self._sealed(name, store) if store.changed else {}
            mark = self._pending.pop(name, None)
            if mark is not None:
                sealed = {MARK_KEY: mark, **sealed}
            if sealed:
                writes[name] = sealed
        return writes

    def _sealed(self, name: str, store: StagedStore) -> dict[bytes, bytes | None]:
        store.expire()
        try:
            sealed = store.seal()
        except Exception as error:
            raise ProcessingError(
                f"task {self._task_id}: store {name!r} holds a value that its serde "
                f"{store.spec.value.name!r} cannot encode: {error!r}"
            ) from error
        if MARK_KEY in sealed:
            raise ProcessingError(
                f"task {self._task_id}: store {name!r} has the key {MARK_KEY!r}, under which its changelog has the "
                f"mark of the store: use another key"
            )
        return sealed


def marks_taken(writes: dict[str, dict[bytes, bytes | None]]) -> dict[str, str]:
    """Remove the marks from the writes of a commit and return them as facts of the local database."""
    facts = {}
    for store, entries in writes.items():
        mark = entries.pop(MARK_KEY, None)
        if mark is not None:
            facts[mark_fact(store)] = mark.decode()
    return facts


def _kind(kind: str) -> str:
    return {"": "key_value without ttl", "ttl": "key_value with ttl"}.get(kind, kind)
