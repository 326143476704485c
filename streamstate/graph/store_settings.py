"""What users say of stores: how long entries live, and how long versions are kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from streamstate.errors import TopologyError
from streamstate.state.spec import SegmentSpec, StoreSpec
from streamstate.units import Duration
from streamstate.windows import as_timedelta
from streamstate.windows.keys import segment_length


def ttl_ms(ttl: Duration | None, store: str) -> int | None:
    """How long entries of ``store`` live after their last write, in ms; None: for ever.

    Raises:
        TopologyError: it is no duration, or below a millisecond.
    """
    return None if ttl is None else kept_ms(ttl, store, "ttl")


def kept_ms(duration: object, store: str, what: str) -> int:
    """A duration that a store is given, in ms.

    Args:
        what: it is, for the error.

    Raises:
        TopologyError: it is no duration, or below a millisecond.
    """
    kept = as_timedelta(duration)
    if kept is None or kept < timedelta(milliseconds=1):
        raise TopologyError(f"the {what} of store {store!r} is a duration of one millisecond or more, not {duration!r}")
    return kept // timedelta(milliseconds=1)


def versioned_spec(store: StoreSpec, history: Duration) -> StoreSpec:
    """The same store with versions.

    Raises:
        TopologyError: the history is negative or no duration.
    """
    kept = as_timedelta(history)
    if kept is None or kept < timedelta(0):
        raise TopologyError(
            f"the history of versioned store {store.name!r} is a duration of zero or more, not {history!r}"
        )
    history_ms = kept // timedelta(milliseconds=1)
    segments = SegmentSpec(history_ms, segment_length(history_ms))
    return replace(store, segments=segments, history_ms=history_ms, reuse=False, content=f"versions of {store.content}")
