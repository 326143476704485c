"""The typed view that fits a staging overlay.

Rule of this module: it knows all kinds of stores and does nothing but choose.
"""

from __future__ import annotations

from collections.abc import Callable

from streamstate.state.key_value import ReadOnlyStore, TypedStore, VersionedStore
from streamstate.state.list_store import ListStore
from streamstate.state.staging import StagedStore
from streamstate.state.timer_store import SetTimers
from streamstate.state.window_stores import SessionStore, WindowStore

AnyStore = TypedStore | VersionedStore | ListStore | SetTimers | WindowStore | SessionStore


def typed_store(staging: StagedStore, timestamp: Callable[[], int]) -> AnyStore:
    """The store as a Processor sees it, or, of timers, as a test does.

    Args:
        staging: the overlay.
        timestamp: gives the event time (ms) to store with an entry.
    """
    spec = staging.spec
    match spec.kind:
        case "list":
            return ListStore(staging, timestamp)
        case "window":
            return WindowStore(staging, timestamp)
        case "session":
            return SessionStore(staging, timestamp)
        case "timers" | "wall_clock_timers":
            return SetTimers(staging)
        case "key_value":
            if spec.history_ms is not None:
                return VersionedStore(staging, timestamp)
            return (TypedStore if spec.source is None else ReadOnlyStore)(staging, timestamp)
