"""What the stores of a task write with a commit, and the mark of how they are laid out.

Rule of this module: stores of plain entries have no mark. One of another kind gets its mark with its first commit, in
the changelog too, so that no other layout is ever read into it: what a task finds when it starts must be what its
topology says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamstate.errors import ProcessingError, TopologyError
from streamstate.state import Backend, StagedStore
from streamstate.state.format import HEADER_BYTES, VERSION, pack_header
from streamstate.store_spec import StoreSpec

# Behind all other keys that such a store has.
MARK_KEY: Final = b"\xff" * 12


def layout(spec: StoreSpec) -> str:
    """What the store's mark says; empty where it has none."""
    if spec.kind != "key_value":
        return spec.kind
    return "" if spec.ttl_ms is None else "ttl"


class Sealing:
    """See the module.

    Args:
        task_id: of the task, for errors.
    """

    __slots__ = ("_task_id", "_unmarked")

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        # Marks of stores that have yet to get them.
        self._unmarked: dict[str, bytes] = {}

    def check(self, stores: Mapping[str, StagedStore], backend: Backend) -> None:
        """Look at the stores of a task that starts.

        Raises:
            TopologyError: one holds entries of another kind.
        """
        self._unmarked.clear()
        for name, store in stores.items():
            wanted = layout(store.spec)
            stored = backend.reader(name)(MARK_KEY)
            found = "" if stored is None else stored[HEADER_BYTES:].decode()
            if found == wanted:
                continue
            if stored is None and next(backend.scan(name, None, None, False), None) is None:
                self._unmarked[name] = pack_header(VERSION, 0) + wanted.encode()
                continue
            raise TopologyError(
                f"store {name!r} holds entries of the kind {_shown(found)}, and the topology now says "
                f"{_shown(wanted)}, which are laid out in another way: give the changed store another name, or start "
                f"over with 'streamstate reset'"
            )

    def seal(self, stores: Mapping[str, StagedStore]) -> dict[str, dict[bytes, bytes | None]]:
        """Staged writes by store, encoded, now those of a commit; stores without any are left out.

        Raises:
            ProcessingError: a value cannot be encoded.
        """
        writes = {}
        for name, store in stores.items():
            if store.changed:
                store.expire()
                try:
                    sealed = store.seal()
                except Exception as error:
                    raise ProcessingError(
                        f"task {self._task_id}: store {name!r} holds a value that its serde "
                        f"{store.spec.value.name!r} cannot encode: {error!r}"
                    ) from error
                if not sealed:
                    # All of it has expired by now.
                    continue
                if name in self._unmarked:
                    sealed[MARK_KEY] = self._unmarked.pop(name)
                writes[name] = sealed
        return writes


def _shown(kind: str) -> str:
    return {"": "key_value without ttl", "ttl": "key_value with ttl"}.get(kind, kind)
