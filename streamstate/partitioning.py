"""Which partition a key belongs to, as Kafka's Java client answers it.

Rule of this module: pure arithmetic on bytes. Outputs, repartition topics and the lookup of a key's owner all
use ``partition_for``; anything else would send a key to one task and look for it in another.
"""

from __future__ import annotations

from struct import unpack_from

__all__ = ["murmur2", "partition_for"]

_MASK = 0xFFFFFFFF
_FACTOR = 0x5BD1E995
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with the seed of Kafka's Java client, as a signed number.

    >>> murmur2(b"foobar")
    -790332482

    Args:
        data: any bytes, also none.
    """
    length = len(data)
    state = (_SEED ^ length) & _MASK
    words = length >> 2
    for word in unpack_from(f"<{words}I", data):
        word = word * _FACTOR & _MASK
        word = (word ^ word >> 24) * _FACTOR & _MASK
        state = state * _FACTOR & _MASK ^ word
    tail = data[words << 2 :]
    if tail:
        state = (state ^ int.from_bytes(tail, "little")) * _FACTOR & _MASK
    state = (state ^ state >> 13) * _FACTOR & _MASK
    state ^= state >> 15
    return state - 0x100000000 if state & 0x80000000 else state


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of ``key`` in a topic of so many partitions.

    >>> partition_for(b"foobar", 8)
    6

    Args:
        key: the serialized key; an empty one is hashed like any other. A record without a key has no
            partition of its own: the producer spreads such records.
        partitions: how many partitions the topic has, at least one.

    Raises:
        ValueError: there is no partition to choose from.
    """
    if partitions < 1:
        raise ValueError(f"a topic has at least one partition, not {partitions}")
    return (murmur2(key) & 0x7FFFFFFF) % partitions
