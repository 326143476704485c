"""State: the backend protocol, the staging overlay over it, the typed stores on top."""

from streamstate.state.backend import NOTHING_EXPIRED, Backend, MemoryBackend, StateDamaged
from streamstate.state.expiring import ExpiringStore
from streamstate.state.key_value import TypedStore, VersionedRecord, VersionedStore
from streamstate.state.mutable_entries import MutableEntry, MutableEntryStore
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import DecodedStore, EncodedStore, StagedStore
from streamstate.state.timer_store import SetTimers, Timers
from streamstate.state.typed_stores import AnyStore, typed_store
from streamstate.state.undo import MISSING, UndoLog, rollback
from streamstate.state.versioned import Versions
from streamstate.state.window_index import NO_TIME, WindowIndex

__all__ = [
           "MISSING",
           "NOTHING_EXPIRED",
           "NO_TIME",
           "AnyStore",
           "Backend",
           "DecodedStore",
           "EncodedStore",
           "ExpiringStore",
           "MemoryBackend",
           "MutableEntry",
           "MutableEntryStore",
           "SetTimers",
           "StagedStore",
           "StateDamaged",
           "Timers",
           "TypedStore",
           "UndoLog",
           "VersionedRecord",
           "VersionedStore",
           "Versions",
           "WindowIndex",
           "rollback",
           "staged_store",
           "typed_store",
]  # fmt: skip
