"""Descriptions of the stores a Processor asks for.

Rule of this module: values only; ``streamstate.state`` gives them life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from streamstate.serde import Serde

__all__ = ["StoreSpec", "key_value"]

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A named key-value store, one instance per task.

    Attributes:
        name: unique in the topology; names the changelog and the column family.
        key: serde of the key. Range scans follow the order of its bytes.
        value: serde of the value.
        changelog: false for a store that may be lost when its task moves.
    """

    name: str
    key: Serde[Any]
    value: Serde[Any]
    changelog: bool = True


def key_value(name: str, *, key: Serde[K], value: Serde[V], changelog: bool = True) -> StoreSpec:
    """Describe a key-value store for ``Stream.process(stores=[...])``.

    Args:
        name: unique in the topology; its changelog is ``{application id}-{name}-changelog``.
        key: serde of the key. Range scans follow the order of its bytes.
        value: serde of the value.
        changelog: false for a store that may be lost when its task moves to another process.

    >>> from streamstate import serde, stores
    >>> stores.key_value("seen", key=serde.string(), value=serde.json()).name
    'seen'
    """
    return StoreSpec(name, key, value, changelog)
