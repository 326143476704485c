"""What the two sides of a foreign-key join ask and answer, as bytes of the internal topics between them."""

from __future__ import annotations

from struct import Struct
from typing import Any

from streamstate.serde import Serde

__all__ = ["ASKED", "HASH_BYTES", "Asked", "answer_serde"]

HASH_BYTES = 16
_ASK = Struct(">bI")
_NO_HASH = bytes(HASH_BYTES)

# (what to do, partition of the left row, its key, hash of its value or None)
Asked = tuple[int, int, bytes, "bytes | None"]


def _ask(asked: Asked) -> bytes:
    what, partition, key, value_hash = asked
    return _ASK.pack(what, partition) + (value_hash or _NO_HASH) + key


def _asked(data: bytes) -> Asked:
    what, partition = _ASK.unpack_from(data)
    end = _ASK.size + HASH_BYTES
    value_hash = data[_ASK.size : end]
    return what, partition, data[end:], None if value_hash == _NO_HASH else value_hash


ASKED: Serde[Asked] = Serde("subscription", _ask, _asked, immutable=True)


def answer_serde(value: Serde[Any]) -> Serde[tuple[int, bytes | None, Any]]:
    """(partition of the left row, hash of the value that asked or None, the right row's value or None).

    >>> from streamstate import serde
    >>> answer = answer_serde(serde.string())
    >>> [answer.deserialize(answer.serialize(given)) for given in ((3, None, "row"), (0, b"h" * 16, None))]
    [(3, None, 'row'), (0, b'hhhhhhhhhhhhhhhh', None)]
    """

    def serialize(answer: tuple[int, bytes | None, Any]) -> bytes:
        partition, value_hash, row = answer
        there = 0 if row is None else 1
        encoded = value.encode(row) or b""
        return _ASK.pack(there, partition) + (value_hash or _NO_HASH) + encoded

    def deserialize(data: bytes) -> tuple[int, bytes | None, Any]:
        there, partition = _ASK.unpack_from(data)
        end = _ASK.size + HASH_BYTES
        value_hash = data[_ASK.size : end]
        row = value.deserialize(data[end:]) if there else None
        return partition, None if value_hash == _NO_HASH else value_hash, row

    return Serde(f"answer({value.name})", serialize, deserialize, schema=value.schema)
