"""What a store is: shared by the topology, which describes it, and the state, which gives it life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from streamstate.serde import Serde

__all__ = ["SegmentSpec", "StoreKind", "StoreSpec"]

StoreKind = Literal["key_value", "list", "timers", "wall_clock_timers", "window", "session"]


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """How long entries of a windowed store live, by the time with which their keys begin (see ``window_keys``).

    Attributes:
        retention_ms: for how long after its own time an entry may be read; None: for ever.
        length_ms: a segment: what stretch of time is deleted at once. Times in keys are rounded down to it.
        indexed: there are index entries besides, by time in ms.
    """

    retention_ms: int | None
    length_ms: int = 1
    indexed: bool = False


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
