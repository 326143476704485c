"""Serdes: what they write is what Kafka's Java serializers write, and what they cannot take they refuse."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate import serde


@pytest.mark.parametrize(
    ("made", "value", "wire"),
    [
        (serde.string(), "žluť", "žluť".encode()),
        (serde.bytes_(), b"\x00\xff", b"\x00\xff"),
        # Vectors of Long-, Integer-, Double- and FloatSerializer: big-endian two's complement and IEEE 754.
        (serde.long(), -1, b"\xff" * 8),
        (serde.long(), 258, b"\x00\x00\x00\x00\x00\x00\x01\x02"),
        (serde.integer(), -(2**31), b"\x80\x00\x00\x00"),
        (serde.double(), 1.0, b"\x3f\xf0\x00\x00\x00\x00\x00\x00"),
        (serde.float_(), -2.5, b"\xc0\x20\x00\x00"),
        (serde.json(), {"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'.encode()),
        (serde.json(sort_keys=True), {"b": 1, "a": 2}, b'{"a":2,"b":1}'),
        (serde.avro("long"), 64, b"\x80\x01"),
    ],
)
def test_wire_format(made, value, wire):
    assert made.serialize(value) == wire
    assert made.deserialize(wire) == value


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (serde.string(), 1),
        (serde.bytes_(), "text"),
        (serde.bytes_(), 5),
        (serde.long(), 2**63),
        (serde.integer(), 2**31),
        (serde.long(), "1"),
        (serde.double(), "1.0"),
        (serde.json(), {1, 2}),
    ],
)
def test_values_of_another_type_are_refused(made, value):
    with pytest.raises((TypeError, ValueError, struct.error)):
        made.serialize(value)


@pytest.mark.parametrize(
    ("made", "wire"),
    [
        (serde.string(), b"\xff\xfe"),
        (serde.long(), b"\x00" * 7),
        (serde.integer(), b"\x00" * 8),
        (serde.double(), b""),
        (serde.json(), b"{"),
        (serde.avro("long"), b"\x80\x01\x00"),
        (serde.avro("long", schema_id=3), b"\x00\x00\x00\x00\x04\x02"),
    ],
)
def test_bytes_of_another_format_are_refused(made, wire):
    with pytest.raises(Exception) as refusal:  # noqa: PT011 - each library has its own
        made.deserialize(wire)
    assert not isinstance(refusal.value, AssertionError)


@given(st.integers(-(2**63), 2**63 - 1))
def test_longs_come_back(value):
    made = serde.long()
    assert made.deserialize(made.serialize(value)) == value


@given(st.floats(allow_nan=False))
def test_doubles_come_back(value):
    made = serde.double()
    assert made.deserialize(made.serialize(value)) == value


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_strings_come_back(value):
    made = serde.string()
    assert made.deserialize(made.serialize(value)) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(json_values)
def test_json_comes_back(value):
    made = serde.json()
    assert made.deserialize(made.serialize(value)) == value


def test_only_serdes_whose_values_cannot_change_say_so():
    assert serde.string().immutable
    assert serde.long().immutable
    assert not serde.json().immutable
    assert not serde.avro("long").immutable


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what is resident")
def test_what_json_serializes_takes_no_more_memory_than_it_is_long() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    serialize = serde.json().serialize
    before = resident()
    kept = [serialize({"number": number}) for number in range(50_000)]
    taken = (resident() - before) / len(kept)
    assert taken < 400, f"{taken:.0f} bytes each for {len(kept[0])} of content"
