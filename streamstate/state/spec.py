"""What a store is: shared by the topology, which describes it, and the state, which gives it life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from streamstate.serde import Serde

__all__ = ["NOTHING_CLOSED_MS", "Aggregates", "SegmentSpec", "StoreKind", "StoreSpec"]

StoreKind = Literal["key_value", "list", "timers", "wall_clock_timers", "window", "session"]

# Ready aggregates of one store: name and kind of each (see ``aggregates.Aggregate.kind``), in the order of their states
# in an entry.
Aggregates = tuple[tuple[str, tuple[str, ...]], ...]
# Before every time: no window was closed by an earlier deployment.
NOTHING_CLOSED_MS: Final = -(1 << 63)


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """How long entries of a windowed store live, by the time with which their keys begin (see ``window_keys``).

    Attributes:
        retention_ms: for how long after its own time an entry may be read; None: for ever.
        length_ms: a segment: what stretch of time is deleted at once. Times in keys are rounded down to it.
        indexed: there are index entries besides, by time in ms, or there may be some that an earlier deployment left.
        grace_ms: of an aggregation, how long after its end a window takes records; None for all other stores.
        final: of an aggregation, results are sent once, when their windows close.
        changed_at_ms: the highest time that the operator had seen when its grace was last changed under existing
            state; ``NOTHING_CLOSED_MS`` when it never was.
        closed_ms: windows that had ended by this time were closed by then, and stay closed.
    """

    retention_ms: int | None
    length_ms: int = 1
    indexed: bool = False
    grace_ms: int | None = None
    final: bool = False
    changed_at_ms: int = NOTHING_CLOSED_MS
    closed_ms: int = NOTHING_CLOSED_MS

    def closed_before(self, time_ms: int, grace_ms: int) -> int:
        """Windows that end by the result had closed when the operator had seen ``time_ms`` and not more.

        >>> SegmentSpec(None).closed_before(100, 30)
        70
        >>> longer_grace_now = SegmentSpec(None, changed_at_ms=100, closed_ms=90)
        >>> [longer_grace_now.closed_before(time_ms, 30) for time_ms in (100, 110, 130)]
        [90, 90, 100]
        """
        if time_ms == self.changed_at_ms:
            return self.closed_ms
        return max(time_ms - grace_ms, self.closed_ms)

    def first_live(self, time_ms: int) -> int:
        """The earliest time whose entries live when the operator has seen ``time_ms``, of a store with a retention.

        What a shorter grace has closed lives until the next time that the operator sees: only then is it sent.

        >>> SegmentSpec(50, grace_ms=30).first_live(100)
        51
        >>> shorter_grace_now = SegmentSpec(20, grace_ms=0, changed_at_ms=100, closed_ms=70)
        >>> [shorter_grace_now.first_live(time_ms) for time_ms in (100, 101)]
        [51, 82]
        """
        assert self.retention_ms is not None, "entries that are kept for ever"
        first = time_ms - self.retention_ms + 1
        if time_ms == self.changed_at_ms and self.grace_ms is not None:
            first = min(first, self.closed_ms - (self.retention_ms - self.grace_ms) + 1)
        return first


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A named store, one instance per task.

    Attributes:
        name: unique in the topology; names the changelog and the column family.
        key: serde of the key. Range scans follow the order of its bytes.
        value: serde of the value.
        changelog: false for a store that may be lost when its task moves.
        source: the input topic whose rows it holds, for the store of a table that is read from a topic.
        reuse: the source serves as the changelog, so that there is none of its own; in a topology that means that it
            may, and is decided by the topic's settings before anything runs.
        segments: of a store whose keys begin with a time; None for all others.
        history_ms: of a versioned store, how far back its versions can be read; None for all others.
        kind: how a processor sees it.
        maxlen: of a list store, the most elements of a list; None: any number.
        window_ms: of a window store, how long its windows are.
        ttl_ms: for how long, in stream time, an entry may be read after it was written; None: for ever.
        content: what the entries are: the operator and its windows, in words. State of other content is refused.
        aggregates: the ready aggregates whose states an entry has; empty where it has none.
        states: makes ``value`` for a store that was written with these aggregates, the newest last.
        keys: makes ``key`` for segments of another length than those of ``segments``.
        index_of: time and suffix of the index's entry for an entry's key; None where there is no index.
    """

    name: str
    key: Serde[Any]
    value: Serde[Any]
    changelog: bool = True
    segments: SegmentSpec | None = None
    source: str | None = None
    reuse: bool = False
    history_ms: int | None = None
    kind: StoreKind = "key_value"
    ttl_ms: int | None = None
    maxlen: int | None = None
    window_ms: int | None = None
    content: str = "processor"
    aggregates: Aggregates = ()
    states: Callable[[tuple[Aggregates, ...]], Serde[Any]] | None = None
    keys: Callable[[int], Serde[Any]] | None = None
    index_of: Callable[[bytes], tuple[int, bytes]] | None = None

    def encoded_key(self, key: Any) -> bytes:
        """The bytes of a key that a processor gives.

        Raises:
            ValueError: it is null.
            SerdeError: the key's serde does not take it.
        """
        if key is None:
            raise ValueError(f"store {self.name!r} has no null keys")
        try:
            return self.key.serialize(key)
        except Exception as error:
            raise self.key.refusal(key, error) from error

    def encoded_value(self, value: Any) -> bytes:
        """The bytes of a value that a processor gives, or an operator.

        Raises:
            SerdeError: the value's serde does not take it.
        """
        try:
            return self.value.serialize(value)
        except Exception as error:
            raise self.value.refusal(value, error) from error

    @property
    def own_changelog(self) -> bool:
        """True when a changelog topic of the application belongs to it."""
        return self.changelog and not self.reuse
