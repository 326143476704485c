"""What staged state is made of, and how a failed record's part of it is taken back."""

from __future__ import annotations

from typing import Any, Final, final

Entry = tuple[Any, int]
# (what was changed, under which key, what was there before), in the order of the changes.
UndoLog = list[tuple[dict[bytes, Any], bytes, Any]]


@final
class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


def rollback(undo: UndoLog, savepoint: int = 0) -> None:
    """Take back, newest first, what the record in hand has staged.

    Args:
        undo: its changes.
        savepoint: length of ``undo`` at the point to go back to; 0: to before the record.
    """
    for staged, key, previous in reversed(undo[savepoint:]):
        if previous is MISSING:
            del staged[key]
        else:
            staged[key] = previous
    del undo[savepoint:]
