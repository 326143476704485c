"""What a serde is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Serde(Generic[T]):
    """A pair of functions between ``T`` and bytes.

    Any pair makes a serde; nothing needs to be subclassed:

    >>> from streamstate import Serde
    >>> hexadecimal = Serde("hex", lambda number: b"%x" % number, lambda data: int(data, 16))
    >>> hexadecimal.serialize(255), hexadecimal.deserialize(b"ff")
    (b'ff', 255)

    Attributes:
        name: what errors and descriptions call it.
        serialize: value to bytes; never called with ``None``. It may raise anything on a value it cannot
            encode: the engine reports it with the record's topic, partition, offset and key.
        deserialize: bytes to value; never called with ``None``.
        immutable: true when no decoded value can be changed in place (numbers, strings, bytes) and a value that
            was encoded decodes to an equal one. Stores keep decoded values only of such serdes; of all others they
            keep bytes, so that changing a dict that a store handed out cannot reach the store.
    """

    name: str
    serialize: Callable[[T], bytes]
    deserialize: Callable[[bytes], T]
    immutable: bool = False
