"""Where the suite keeps what it installs and makes; git ignores it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PLACE", "Unavailable"]

PLACE = Path(__file__).resolve().parents[2] / "build" / "bench"


class Unavailable(Exception):
    """A contender cannot take part on this machine; the message says why and what mends it."""
