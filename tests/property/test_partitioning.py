"""murmur2 and the partition of a key: published vectors, a second implementation, and laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate.partitioning import murmur2, partition_for

# The vectors of Kafka's own UtilsTest.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def reference(data: bytes) -> int:
    """The algorithm step by step with 32-bit wrap-around, as the Java source walks it."""
    mask, factor = 0xFFFFFFFF, 0x5BD1E995
    state = 0x9747B28C ^ len(data)
    whole = len(data) // 4
    for index in range(whole):
        at = index * 4
        word = data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24
        word = (word * factor) & mask
        word ^= word >> 24
        word = (word * factor) & mask
        state = (state * factor) & mask
        state ^= word
    rest = len(data) % 4
    if rest == 3:
        state ^= data[whole * 4 + 2] << 16
    if rest >= 2:
        state ^= data[whole * 4 + 1] << 8
    if rest >= 1:
        state ^= data[whole * 4]
        state = (state * factor) & mask
    state ^= state >> 13
    state = (state * factor) & mask
    state ^= state >> 15
    return state - (1 << 32) if state >= 1 << 31 else state


@pytest.mark.parametrize(("data", "expected"), VECTORS.items())
def test_published_vectors(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected


@given(st.binary(max_size=200))
def test_agrees_with_the_algorithm_step_by_step(data: bytes) -> None:
    assert murmur2(data) == reference(data)


@given(st.binary(max_size=64))
def test_is_a_signed_32_bit_number(data: bytes) -> None:
    assert -(1 << 31) <= murmur2(data) < 1 << 31


@given(st.binary(max_size=64), st.integers(min_value=1, max_value=10_000))
def test_partition_is_one_of_the_topic_and_does_not_change(key: bytes, partitions: int) -> None:
    partition = partition_for(key, partitions)
    assert 0 <= partition < partitions
    assert partition == partition_for(bytes(key), partitions)


@given(st.binary(max_size=64), st.integers(min_value=1, max_value=500), st.integers(min_value=1, max_value=20))
def test_topics_with_a_multiple_of_the_partitions_split_partitions(key: bytes, partitions: int, times: int) -> None:
    assert partition_for(key, partitions * times) % partitions == partition_for(key, partitions)


def test_sign_bit_is_cleared_not_negated() -> None:
    assert partition_for(b"foobar", 1 << 31) == -790332482 & 0x7FFFFFFF


@pytest.mark.parametrize("partitions", [0, -1])
def test_no_partitions(partitions: int) -> None:
    with pytest.raises(ValueError, match="at least one partition"):
        partition_for(b"key", partitions)
