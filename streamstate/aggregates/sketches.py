"""Sketches: small summaries of many values, as bytes.

Rule of this module: pure functions from bytes to bytes, so that a state can be stored, merged and compared anywhere.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf, log, sqrt
from typing import Any

import orjson

from streamstate.serde._json import finite
from streamstate.serde._tagged import canonical

__all__ = ["HyperLogLog"]

HASH_BITS = 64
# Registers that are not zero, as (index in 2 bytes, value in 1); beyond so many, all of them are written.
SPARSE_ENTRY = 3


def hash64(value: Any) -> int:
    """A hash that is the same in every process.

    >>> hash64("EWR") == hash64("EWR"), hash64(1) == hash64(1.0), hash64(1) == hash64("1")
    (True, True, False)
    """
    if isinstance(value, bytes):
        data = b"b" + value
    elif isinstance(value, str):
        data = b"s" + value.encode()
    elif isinstance(value, float) and value.is_integer():
        data = b"j%d" % int(value)
    elif type(value) is int and value.bit_length() <= 1024:
        # As far as there are floats that equal it.
        data = b"j%d" % value
    else:
        try:
            data = b"j" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            whole = data.find(b"null") < 0 or finite((value,))
        except TypeError:
            whole = False
        if not whole:
            # What orjson does not write, or writes as null.
            data = b"t" + canonical(value)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


class HyperLogLog:
    """Estimates how many different values there were.

    The state is empty, then sparse (entries of index and value, by index), then one byte per register. The estimate is
    Ertl's, which needs no corrections for small and large numbers.

    Args:
        precision: the logarithm of the number of registers.
    """

    __slots__ = ("_precision", "_registers", "_sparse_bytes")

    def __init__(self, precision: int) -> None:
        self._precision = precision
        self._registers = 1 << precision
        self._sparse_bytes = self._registers // 4 // SPARSE_ENTRY * SPARSE_ENTRY

    def add(self, state: bytes, value: Any) -> bytes:
        """The state with one more value."""
        hashed = hash64(value)
        rest_bits = HASH_BITS - self._precision
        index = hashed >> rest_bits
        rest = hashed & ((1 << rest_bits) - 1)
        return self._raised(state, index, rest_bits - rest.bit_length() + 1)

    def _raised(self, state: bytes, index: int, rank: int) -> bytes:
        if len(state) == self._registers:
            if state[index] >= rank:
                return state
            return state[:index] + bytes((rank,)) + state[index + 1 :]
        packed = index.to_bytes(2, "big")
        low, high = 0, len(state) // SPARSE_ENTRY
        while low < high:
            middle = (low + high) // 2
            if state[middle * SPARSE_ENTRY : middle * SPARSE_ENTRY + 2] < packed:
                low = middle + 1
            else:
                high = middle
        at = low * SPARSE_ENTRY
        if state[at : at + 2] == packed:
            if state[at + 2] >= rank:
                return state
            return state[: at + 2] + bytes((rank,)) + state[at + SPARSE_ENTRY :]
        state = state[:at] + packed + bytes((rank,)) + state[at:]
        return state if len(state) <= self._sparse_bytes else self._dense(state)

    def _dense(self, state: bytes) -> bytes:
        if len(state) == self._registers:
            return state
        registers = bytearray(self._registers)
        for at in range(0, len(state), SPARSE_ENTRY):
            registers[int.from_bytes(state[at : at + 2], "big")] = state[at + 2]
        return bytes(registers)

    def merge(self, one: bytes, other: bytes) -> bytes:
        """The state of the values of both."""
        if len(one) < self._registers and len(other) < self._registers:
            for at in range(0, len(other), SPARSE_ENTRY):
                one = self._raised(one, int.from_bytes(other[at : at + 2], "big"), other[at + 2])
            return one
        return bytes(map(max, self._dense(one), self._dense(other)))

    def estimate(self, state: bytes) -> int:
        """About how many different values were added."""
        size, rest_bits = self._registers, HASH_BITS - self._precision
        counts = [0] * (rest_bits + 2)
        for register in self._dense(state):
            counts[register] += 1
        if counts[0] == size:
            return 0
        total = size * _tau(1 - counts[rest_bits + 1] / size)
        for rank in range(rest_bits, 0, -1):
            total = 0.5 * (total + counts[rank])
        total += size * _sigma(counts[0] / size)
        return round(size * size / (2 * log(2)) / total)


def _sigma(x: float) -> float:
    if x == 1:
        return inf
    weight, total, before = 1.0, x, -1.0
    while total != before:
        x *= x
        before = total
        total += x * weight
        weight += weight
    return total


def _tau(x: float) -> float:
    if x in (0, 1):
        return 0.0
    weight, total, before = 1.0, 1 - x, -1.0
    while total != before:
        x = sqrt(x)
        before = total
        weight *= 0.5
        total -= (1 - x) ** 2 * weight
    return total / 3
