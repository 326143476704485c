"""How an entry is stored, in RocksDB and byte for byte the same in the changelog.

A version byte, the event timestamp as a signed big-endian 64-bit integer of milliseconds, the value's bytes.
The version leaves room for entries that carry more, such as an expiry.
"""

from __future__ import annotations

from struct import Struct

from streamstate.errors import TaskCorrupted

VERSION = 1
HEADER = Struct(">bq")
HEADER_BYTES = HEADER.size

pack_header = HEADER.pack
unpack_header = HEADER.unpack_from


def decode(stored: bytes, store: str) -> tuple[bytes, int]:
    """Split a stored entry into the value's bytes and its timestamp (ms).

    Raises:
        TaskCorrupted: the entry was not written by a version that this one can read.

    >>> decode(pack_header(VERSION, 1_357_000_000_000) + b"42", "counts")
    (b'42', 1357000000000)
    """
    if len(stored) < HEADER_BYTES or stored[0] != VERSION:
        raise TaskCorrupted(
            f"store {store!r}: an entry has format {stored[:1]!r}, this version reads format {VERSION}; "
            f"run the version of streamstate that wrote it, or start over with 'streamstate reset'"
        )
    return stored[HEADER_BYTES:], unpack_header(stored)[1]
