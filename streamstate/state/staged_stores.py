"""The staging overlay that fits a store.

Rule of this module: it knows all kinds of overlays and does nothing but choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from streamstate.serde import bytes_
from streamstate.state.backend import Backend
from streamstate.state.expiring import ExpiringStore
from streamstate.state.mutable_entries import MutableEntryStore
from streamstate.state.spec import StoreSpec
from streamstate.state.staging import DecodedStore, EncodedStore, StagedStore
from streamstate.state.undo import UndoLog


def no_time() -> int:
    """Stream time before the first record."""
    return -1


def staged_store(
    spec: StoreSpec,
    backend: Backend,
    cache_bytes: int,
    undo: UndoLog | None = None,
    stream_time: Callable[[], int] = no_time,
) -> StagedStore:
    """The overlay that fits ``spec``.

    With an undo log values are encoded when they are put, so that a value that cannot be encoded fails its own
    record and not the commit.

    Args:
        spec: what store it is.
        backend: below it.
        cache_bytes: for committed entries.
        undo: where to log what a failed record takes back; None when nothing needs it.
        stream_time: the task's (ms), of which only stores with a time to live ask.
    """
    if spec.history_ms is not None or spec.kind != "key_value":
        # Laid out and encoded by ``versioned`` and the modules of the other kinds.
        plain = replace(spec, key=bytes_(), value=bytes_(), history_ms=None, kind="key_value")
        store = staged_store(plain, backend, cache_bytes, undo)
        store.spec = spec
        return store
    if spec.ttl_ms is not None:
        return ExpiringStore(spec, backend, cache_bytes, undo, stream_time)
    if not spec.value.immutable or undo is not None:
        return EncodedStore(spec, backend, cache_bytes, undo)
    if spec.segments is not None:
        return DecodedStore(spec, backend, cache_bytes)
    return MutableEntryStore(spec, backend, cache_bytes)
