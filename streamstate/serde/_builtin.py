"""The ready serdes. Integers and floats are byte-compatible with Kafka's Java serializers (big-endian)."""

from __future__ import annotations

import struct
from typing import Any

from streamstate.serde._base import Serde

__all__ = ["bytes_", "double", "float_", "integer", "long", "short", "string"]


def _bytes(value: bytes) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"not {type(value).__name__}")


# Given bytes, the type itself returns the same object.
_BYTES: Serde[bytes] = Serde("bytes", _bytes, bytes, immutable=True, takes=(bytes, bytearray, memoryview))
_STRING: Serde[str] = Serde("string", str.encode, bytes.decode, immutable=True, takes=(str,))


def bytes_() -> Serde[bytes]:
    """Bytes as they are. The default of every source and sink.

    >>> bytes_().deserialize(b"as is")
    b'as is'
    """
    return _BYTES


def string() -> Serde[str]:
    """UTF-8 text, as Kafka's StringSerializer writes it.

    >>> string().serialize("grüezi")
    b'gr\\xc3\\xbcezi'
    """
    return _STRING


def _number(name: str, layout: str, *takes: type, exact: bool = True) -> Serde[Any]:
    packer = struct.Struct(layout)
    unpack, size = packer.unpack, packer.size

    def deserialize(data: bytes) -> Any:
        if len(data) != size:
            raise ValueError(f"{size} bytes are a {name}, not {len(data)}")
        return unpack(data)[0]

    def unrounded(value: Any) -> bytes:
        data = packer.pack(value)
        if type(value) is int and unpack(data)[0] != value:
            raise ValueError("it would be rounded: give it as a float to have that")
        return data

    serialize = unrounded if float in takes else packer.pack
    return Serde(name, serialize, deserialize, immutable=exact, takes=takes)


_LONG = _number("long", ">q", int)
_INTEGER = _number("integer", ">i", int)
_SHORT = _number("short", ">h", int)
_DOUBLE = _number("double", ">d", float, int)
# Encoding rounds: a store that kept the decoded value would show it unrounded until it left the cache.
_FLOAT = _number("float", ">f", float, int, exact=False)


def long() -> Serde[int]:
    """A signed 64-bit integer, as Kafka's LongSerializer writes it.

    >>> long().serialize(1)
    b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01'
    """
    serde: Serde[int] = _LONG
    return serde


def integer() -> Serde[int]:
    """A signed 32-bit integer, as Kafka's IntegerSerializer writes it.

    >>> integer().deserialize(b"\\xff\\xff\\xff\\xfe")
    -2
    """
    serde: Serde[int] = _INTEGER
    return serde


def short() -> Serde[int]:
    """A signed 16-bit integer, as Kafka's ShortSerializer writes it.

    >>> short().serialize(258)
    b'\\x01\\x02'
    """
    serde: Serde[int] = _SHORT
    return serde


def double() -> Serde[float]:
    """A 64-bit float, as Kafka's DoubleSerializer writes it.

    >>> double().deserialize(double().serialize(0.1))
    0.1
    """
    serde: Serde[float] = _DOUBLE
    return serde


def float_() -> Serde[float]:
    """A 32-bit float, as Kafka's FloatSerializer writes it: decoded values have its lower precision.

    >>> float_().deserialize(float_().serialize(0.5))
    0.5
    """
    serde: Serde[float] = _FLOAT
    return serde
