"""State: the backend protocol, the staging overlay over it, the typed stores on top."""

from streamstate.state.backend import Backend, MemoryBackend
from streamstate.state.keyvalue import TypedStore
from streamstate.state.staging import (
    MISSING,
    DecodedStore,
    EncodedStore,
    StagedStore,
    UndoLog,
    rollback,
    staged_store,
)

__all__ = ["MISSING", "Backend", "DecodedStore", "EncodedStore", "MemoryBackend", "StagedStore", "TypedStore",
           "UndoLog", "rollback", "staged_store"]  # fmt: skip
