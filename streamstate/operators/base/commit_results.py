"""Results that wait for the commit: ``emit="commit"``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from streamstate.graph.error_policy import FAIL, ErrorPolicy
from streamstate.operators.base.forwarding import Change, Forward, with_encoded_key
from streamstate.state.mutable_entries import MutableEntry
from streamstate.state.undo import MISSING, UndoLog


class CommitEmitter(Protocol):
    """What waits for the commit.

    Attributes:
        forward: takes what was pending; its last argument is the timestamp.
        on_error: policy for a result that fails then.
    """

    forward: Callable[..., None]
    on_error: ErrorPolicy

    def take(self) -> Iterable[tuple[bytes, tuple[Any, ...]]]:
        """What is pending, as (encoded key, arguments of ``forward``); it no longer is. To be used up before another
        record comes."""
        ...

    def discard(self) -> None:
        """Drop what is pending."""
        ...

    def __len__(self) -> int: ...


class ChangesPerCommit:
    """A table that changes at commits only: from what was so at the last one to what is newest."""

    def __init__(
        self,
        serialize_key: Callable[[Any], bytes],
        forward: Change,
        undo: UndoLog | None,
        on_error: ErrorPolicy = FAIL,
    ) -> None:
        self.forward: Callable[..., None] = forward
        self.on_error = on_error
        self._serialize_key = serialize_key
        self._undo = undo
        self._pending: dict[bytes, tuple[Any, Any, Any, int]] = {}

    def change(self, key: Any, new: Any, old: Any, timestamp: int) -> None:
        """Take one change."""
        encoded = self._serialize_key(key)
        before = self._pending.get(encoded)
        if self._undo is not None:
            self._undo.append((self._pending, encoded, MISSING if before is None else before))
        self._pending[encoded] = (key, new, old if before is None else before[2], timestamp)

    def take(self) -> list[tuple[bytes, tuple[Any, ...]]]:
        """What is pending, unless it came and went; it no longer is."""
        pending = [(key, change) for key, change in self._pending.items() if change[1:3] != (None, None)]
        self._pending.clear()
        return pending

    def discard(self) -> None:
        """Drop what is pending."""
        self._pending.clear()

    def __len__(self) -> int:
        return len(self._pending)


class NewestPerCommit:
    """``emit="commit"``: keeps the newest value per key and sends it on when the transaction is about to close.

    Attributes:
        as_encoded: ``forward`` takes the encoded key in place of the key.
        slots: by encoded key, what ``forward`` takes as the key and the slot of its newest value: for aggregations that
            write slots, in place of changes. A slot is put here when it becomes dirty.
    """

    def __init__(
        self,
        serialize_key: Callable[[Any], bytes],
        forward: Forward,
        undo: UndoLog | None,
        on_error: ErrorPolicy = FAIL,
    ) -> None:
        keyed = with_encoded_key(forward, serialize_key)
        self.forward: Callable[..., None] = forward if keyed is None else keyed
        self.as_encoded = keyed is not None
        self.on_error = on_error
        self._serialize_key = serialize_key
        self._undo = undo
        self._pending: dict[bytes, tuple[Any, Any, int]] = {}
        self.slots: dict[bytes, tuple[Any, MutableEntry]] = {}

    def change(self, key: Any, new: Any, old: Any, timestamp: int) -> None:
        """Take one update."""
        encoded = self._serialize_key(key)
        if self._undo is not None:
            self._undo.append((self._pending, encoded, self._pending.get(encoded, MISSING)))
        self._pending[encoded] = (encoded if self.as_encoded else key, new, timestamp)

    def take(self) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
        """What is pending; it no longer is. One by one, so that each is sent on while the processor has it at hand."""
        pending, slots = list(self._pending.items()), list(self.slots.items())
        self._pending.clear()
        self.slots.clear()
        yield from pending
        for encoded, (key, slot) in slots:
            # What changes it after this must say so again.
            slot.dirty = False
            yield encoded, (key, slot.value, slot.timestamp)

    def discard(self) -> None:
        """Drop what is pending."""
        self._pending.clear()
        self.slots.clear()

    def __len__(self) -> int:
        return len(self._pending) or len(self.slots)


def newest_only(emitter: NewestPerCommit) -> Change:
    """What takes changes for ``emitter``, and tells aggregations that it can read their stores instead."""

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        emitter.change(key, new, old, timestamp)

    run.newest = emitter  # type: ignore[attr-defined]
    return run
