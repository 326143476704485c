"""Facts that several families show alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamstate.windows import DEFAULT_GRACE_MS

__all__ = ["grace_is_default", "with_grace"]


def grace_is_default(windows: Any) -> bool | None:
    """Whether windows have the grace that they get when none is given; None: they never close."""
    grace_ms = getattr(windows, "grace_ms", None)
    return None if grace_ms is None else grace_ms == DEFAULT_GRACE_MS


def with_grace(fields: Mapping[str, Any], *, default: bool | None) -> str:
    """Fields and their values; a grace says whether it is the default.

    >>> with_grace({"size_ms": 60000, "grace_ms": 0}, default=True)
    'size_ms 60000 grace_ms 0 (the default grace)'
    """
    shown = " ".join(f"{name} {value}" for name, value in fields.items())
    return f"{shown} (the default grace)" if default else shown
