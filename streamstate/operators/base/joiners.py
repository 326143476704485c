"""Joiners seen from the right side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Of both values, or of the key and both values.
Joiner = Callable[..., Any]


def from_right(joiner: Joiner, with_key: bool) -> Joiner:
    """The joiner as the right side calls it: with its own value first."""
    if with_key:
        return lambda key, mine, other: joiner(key, other, mine)
    return lambda mine, other: joiner(other, mine)
