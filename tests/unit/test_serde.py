"""Serdes: what they write is what Kafka's Java serializers write, and what they cannot take they refuse."""

from __future__ import annotations

import resource
import struct
from datetime import UTC, date, datetime, time
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate import Processor, Serde, SerdeError, Topology, serde, stores
from streamstate.testing.driver.driver import TopologyTestDriver

NAMED = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")


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


# Written by the serializers of Kafka's Java client, version 4.2.2: BooleanSerializer, ShortSerializer, UUIDSerializer
# and the ListSerializer of Serdes.ListSerde(ArrayList.class, ...).
@pytest.mark.parametrize(
    ("made", "value", "wire"),
    [
        (serde.boolean(), True, "01"),
        (serde.boolean(), False, "00"),
        (serde.short(), -2, "fffe"),
        (serde.uuid(), NAMED, "30663866616435622d643963622d343639662d613136352d373038363737323839353065"),
        (
            serde.list_(serde.string()),
            ["a", None, "žluť", ""],
            "01000000040000000161ffffffff00000006c5be6c75c5a500000000",
        ),
        (serde.list_(serde.string()), [], "0100000000"),
        (
            serde.list_(serde.long()),
            [1, None, -1],
            "000000000100000001000000030000000000000001ffffffffffffffff",
        ),
        (serde.list_(serde.long()), [], "000000000000000000"),
        (serde.list_(serde.integer()), [258], "00000000000000000100000102"),
        (serde.list_(serde.short()), [5, -2], "0000000000000000020005fffe"),
        (serde.list_(serde.double()), [1.0, None], "000000000100000001000000023ff0000000000000"),
        (serde.list_(serde.float_()), [-2.5], "000000000000000001c0200000"),
        (
            serde.list_(serde.uuid()),
            [NAMED, None],
            "0000000001000000010000000230663866616435622d643963622d343639662d613136352d373038363737323839353065",
        ),
        (serde.list_(serde.boolean()), [True, None], "01000000020000000101ffffffff"),
        (serde.list_(serde.bytes_()), [b"\x00\xff"], "01000000010000000200ff"),
    ],
)
def test_wire_format_of_the_java_client(made, value, wire):
    assert made.serialize(value).hex() == wire
    assert made.deserialize(bytes.fromhex(wire)) == value


@pytest.mark.parametrize(
    ("made", "value", "wire"),
    [
        (serde.date_(), date(1970, 1, 3), serde.integer().serialize(2)),
        (serde.date_(), date(1969, 12, 31), serde.integer().serialize(-1)),
        (serde.time_(), time(0, 0, 1, 7), serde.long().serialize(1_000_007)),
        (serde.datetime_(), datetime(1970, 1, 1, 0, 0, 1, 7, tzinfo=UTC), serde.long().serialize(1_000_007)),
        (serde.datetime_(), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), serde.long().serialize(-1_000_000)),
    ],
)
def test_dates_and_times_are_integers_of_the_java_client(made, value, wire):
    assert made.serialize(value) == wire
    assert made.deserialize(wire) == value


@given(st.datetimes(timezones=st.timezones()))
def test_points_in_time_come_back(value):
    made = serde.datetime_()
    assert made.deserialize(made.serialize(value)) == value.astimezone(UTC)


@given(st.dates(), st.times())
def test_dates_and_times_of_day_come_back(day, clock):
    assert serde.date_().deserialize(serde.date_().serialize(day)) == day
    assert serde.time_().deserialize(serde.time_().serialize(clock)) == clock


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), st.lists(st.none() | st.binary()))
def test_lists_come_back(numbers, blobs):
    made = serde.list_(serde.long())
    assert made.deserialize(made.serialize(numbers)) == numbers
    nested = serde.list_(serde.list_(serde.bytes_()))
    assert nested.deserialize(nested.serialize([blobs, None])) == [blobs, None]


def test_a_serde_that_only_has_the_name_of_one_of_constant_size_has_lengths():
    text = Serde("long", lambda number: str(number).encode(), int)
    assert serde.list_(text).serialize([5]).hex() == "01000000010000000135"


@pytest.mark.parametrize(
    ("made", "value", "text"),
    [
        (serde.string(), 5, "the string serde takes str, not int: 5"),
        (serde.bytes_(), "text", "the bytes serde takes bytes or bytearray or memoryview, not str: 'text'"),
        (serde.long(), "5", "the long serde takes int, not str: '5'"),
        (serde.long(), 2**63, "the long serde cannot encode this int: 9223372036854775808 ("),
        (serde.double(), "1.0", "the double serde takes float or int, not str: '1.0'"),
        (serde.json(), {1, 2}, "the json serde cannot encode this set: {1, 2} ("),
        (serde.boolean(), 1, "the boolean serde takes bool, not int: 1"),
        (serde.short(), 2**15, "the short serde cannot encode this int: 32768 ("),
        (serde.uuid(), str(NAMED), "the uuid serde takes UUID, not str: '0f8fad5b-"),
        (serde.date_(), "1970-01-01", "the date serde takes date, not str: '1970-01-01'"),
        (serde.date_(), datetime(1970, 1, 1), "the date serde cannot encode this datetime: "),
        (serde.time_(), time(5, tzinfo=UTC), "a time with a zone"),
        (serde.datetime_(), datetime(1970, 1, 1), "a datetime without a zone"),
        (serde.datetime_(), date(1970, 1, 1), "the datetime serde takes datetime, not date: "),
        (serde.list_(serde.string()), "text", "the list(string) serde takes list or tuple, not str: 'text'"),
        (serde.list_(serde.string()), ["a", 5], "the string serde takes str, not int: 5"),
        (serde.string(), "\ud800", "the string serde cannot encode this str: '\\ud800' ("),
    ],
)
def test_refusals_name_the_serde_and_both_types(made, value, text):
    with pytest.raises(SerdeError) as refusal:
        made.encode(value)
    assert text in str(refusal.value)


def test_long_values_are_cut_in_refusals():
    with pytest.raises(SerdeError) as refusal:
        serde.long().encode("x" * 1_000)
    assert len(str(refusal.value)) < 250


def test_encode_does_what_serialize_does():
    assert serde.long().encode(1) == serde.long().serialize(1)
    assert serde.long().encode(None) is None


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
        (serde.boolean(), b"\x02"),
        (serde.boolean(), b"\x01\x01"),
        (serde.short(), b"\x00"),
        (serde.uuid(), b"0f8fad5b"),
        (serde.date_(), b"\x00" * 8),
        (serde.time_(), b"\xff" * 8),
        (serde.datetime_(), b"\x00" * 4),
        (serde.list_(serde.long()), b"\x01\x00\x00\x00\x00"),
        (serde.list_(serde.long()), b"\x00\x00\x00\x00\x00\x00\x00\x00\x01"),
        (serde.list_(serde.string()), b"\x01\x00\x00\x00\x02\x00\x00\x00\x00"),
        (serde.list_(serde.string()), b"\x01\x00\x00\x00\x01\x00\x00\x00\x05ab"),
        (serde.list_(serde.string()), b"\x01\x00\x00\x00\x00?"),
        (serde.list_(serde.string()), b""),
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
    assert serde.uuid().immutable
    assert not serde.list_(serde.long()).immutable
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


@pytest.mark.parametrize(("made", "exact"), [(serde.double(), 2**53), (serde.float_(), 2**24)])
def test_integers_that_a_float_would_round_are_refused(made: serde.Serde[float], exact: int) -> None:
    assert made.deserialize(made.serialize(exact)) == exact
    assert made.deserialize(made.serialize(2**80)) == 2**80
    assert made.deserialize(made.serialize(float(exact + 1))) == exact
    for value in (exact + 1, -exact - 1, 2**64 + 1):
        with pytest.raises(SerdeError, match="would be rounded"):
            made.encode(value)


RAW = serde.bytes_()
KINDS = ((stores.key_value, "rows"), (stores.list_, "lists"))


def test_stores_refuse_what_json_does_not_have() -> None:
    class Keeps(Processor[bytes, bytes, bytes, bytes]):
        def init(self, context):
            self.stores = [context.store(name) for name in ("rows", "lists")]

        def process(self, key, value):
            rows, lists = self.stores
            rows.put(b"k", {"id": 2**70})
            lists.append(b"k", [2**70])
            if value == b"rows":
                rows.put(b"k", {"x": float("nan")})
            if value == b"lists":
                lists.append(b"k", [float("inf")])

    topology = Topology("stores")
    topology.stream("in", on_error="continue").process(
        Keeps,
        stores=[made(name, key=RAW, value=serde.json()) for made, name in KINDS],
    )
    with TopologyTestDriver(topology) as driver:
        for what in (b"rows", b"lists", b"neither"):
            driver.input("in").pipe(b"k", what)
        driver.crash(disk="lost")
        assert driver.store("rows").get(b"k") == {"id": 2**70}
        assert driver.store("lists").get(b"k") == [[2**70]]
