"""State: the backend protocol, the staging overlay over it, the typed stores on top."""

from streamstate.state.backend import NOTHING_EXPIRED, Backend, MemoryBackend, StateDamaged
from streamstate.state.entries import MISSING, UndoLog, rollback
from streamstate.state.expiring import ExpiringStore
from streamstate.state.keyvalue import TypedStore, VersionedRecord, VersionedStore
from streamstate.state.overlays import staged_store
from streamstate.state.segments import NO_TIME, Segments
from streamstate.state.slots import Slot, SlotStore
from streamstate.state.staging import DecodedStore, EncodedStore, StagedStore
from streamstate.state.timers import SetTimers, Timers
from streamstate.state.typed import AnyStore, typed_store
from streamstate.state.versioned import Versions

__all__ = ["MISSING", "NOTHING_EXPIRED", "NO_TIME", "AnyStore", "Backend", "DecodedStore", "EncodedStore",
           "ExpiringStore", "MemoryBackend", "Segments", "SetTimers", "Slot", "SlotStore", "StagedStore",
           "StateDamaged", "Timers", "TypedStore", "UndoLog", "VersionedRecord", "VersionedStore", "Versions",
           "rollback", "staged_store", "typed_store"]  # fmt: skip
