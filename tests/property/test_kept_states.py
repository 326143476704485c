"""States of aggregates as bytes: what goes in comes back as it was, with its types, or is refused when it goes in."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamstate.serde._tagged import KINDS, decode, encode, list_encoder

TAGS = ("base64", "$type")
ZONES = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from([ZoneInfo("Europe/Zurich"), ZoneInfo("America/New_York")]),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text(max_size=3)),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(TAGS)
# What a dict may have as a key, and a set as a member.
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    TEXT,
    st.binary(max_size=5),
    st.decimals(),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
).filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))
NESTED = st.recursive(HASHABLE, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
VALUES = st.recursive(
    NESTED | st.sets(NESTED, max_size=3),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(TEXT, inner, max_size=3),
        st.dictionaries(NESTED, inner, max_size=3),
        st.builds(lambda tag, value: {tag: value}, st.sampled_from(TAGS), inner),
    ),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """Equal for equal values of equal types only, also where Python's own equality is another."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [shape(item) for item in value]
    if kind in (set, frozenset):
        return kind, sorted(repr(shape(item)) for item in value)
    if kind is dict:
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if kind in (datetime, time):
        return kind, value.replace(tzinfo=None).isoformat(), value.fold, zone(value.tzinfo)
    # Python writes no more than 4,300 digits of an integer.
    return kind, hex(value) if kind is int else repr(value)


def zone(given: tzinfo | None) -> Any:
    return given if given is None else (type(given), repr(given))


@given(VALUES)
@example({"base64": "aGk="})
@example([{"base64": b"hi"}, {"$type": ["int", "0x1"]}, {"$type": {"base64": "aGk="}}])
@example([datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Zurich"), fold=1)])
@example([10**6_000, -(10**6_000)])
@example({b"base64": 1, "base64": 2})
def test_what_goes_in_comes_back(value: Any) -> None:
    assert shape(decode(encode(value))) == shape(value)


@given(st.lists(VALUES, max_size=3))
def test_states_are_a_list_whatever_they_hold(states: list[Any]) -> None:
    written = list_encoder(str)(states)
    assert written[:1] == b"["
    assert shape(decode(written)) == shape(states)
    assert written == encode(states)


@given(VALUES)
def test_what_was_decoded_is_encoded_to_the_same_bytes(value: Any) -> None:
    """Tables compare rows by their bytes, and changelogs are replayed elsewhere."""
    assert encode(decode(encode(value))) == encode(value)


NUMBERS_OF_OLD = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
KEYS_OF_OLD = TEXT.filter(lambda key: key not in TAGS)
JSON_OF_OLD = st.recursive(
    st.none() | st.booleans() | NUMBERS_OF_OLD | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS_OF_OLD, inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(JSON_OF_OLD, max_size=4))
def test_what_older_versions_wrote_reads_as_it_did_and_is_written_as_it_was(states: list[Any]) -> None:
    assert shape(decode(orjson.dumps(states))) == shape(states)
    assert encode(states) == orjson.dumps(states)


def test_bytes_that_older_versions_wrote() -> None:
    assert decode(b'[{"base64":"eA=="},3]') == [b"x", 3]
    assert encode([b"x", 3]) == b'[{"base64":"eA=="},3]'
    # They wrote bytes so inside of lists too, and then read them as dicts.
    assert decode(b'[[{"base64":"eA=="}]]') == [[b"x"]]
    # A dict that cannot be bytes.
    assert decode(b'[{"base64":"no bytes!"},{"base64":7}]') == [{"base64": "no bytes!"}, {"base64": 7}]


class Colour(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


class Word(StrEnum):
    A = "a"


class Text(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int


class Moment(datetime):
    pass


class OwnZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1)


@dataclass
class Row:
    x: int


REFUSED = [
    Colour.RED,
    Number.ONE,
    Word.A,
    Text("x"),
    Point(1),
    Row(1),
    Counter("aab"),
    OrderedDict(a=1),
    Fraction(1, 3),
    1j,
    bytearray(b"x"),
    memoryview(b"x"),
    Moment(2024, 1, 1),
    datetime(2024, 1, 1, tzinfo=OwnZone()),
    time(1, tzinfo=OwnZone()),
    object(),
    "\ud800",
    {Text("x"): 1},
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_would_not_come_back_as_it_was_is_refused(value: Any) -> None:
    for state in (value, [[value]], {"x": value}, (value,)):
        with pytest.raises(TypeError):
            encode(state)


def test_the_refusal_says_which_state_and_which_type() -> None:
    write = list_encoder(lambda index: f"the state of the aggregate {'ab'[index]!r} in store 's'")
    with pytest.raises(TypeError, match=r"aggregate 'b' in store 's' cannot be kept: .*type fractions\.Fraction"):
        write([1, [Fraction(1, 3)]])
    with pytest.raises(TypeError, match=r"time zone of type .*OwnZone.*use datetime\.timezone"):
        write([1, datetime(2024, 1, 1, tzinfo=OwnZone())])
    own: list[Any] = []
    own.append(own)
    with pytest.raises(TypeError, match=r"aggregate 'a' .*holds itself, or is nested too deep"):
        write([own])


def test_a_tag_of_a_later_version_is_no_value() -> None:
    with pytest.raises(ValueError, match="kind 'quaternion', which this version does not know"):
        decode(b'[{"$type":["quaternion",1,2,3,4]}]')


def test_equal_sets_are_equal_bytes() -> None:
    # 0 and 8 have one place in a small table, so that their order is that in which they came.
    assert list({0, 8}) != list({8, 0})
    assert encode({0, 8}) == encode({8, 0})


def test_the_kinds_are_those_that_the_pages_name() -> None:
    assert {kind.__name__ for kind in KINDS} == {
        *("NoneType", "bool", "int", "float", "str", "bytes", "list", "dict", "tuple", "set", "frozenset"),
        *("Decimal", "datetime", "date", "time", "timedelta", "UUID"),
    }
    assert decode(encode(UUID(int=1))) == UUID(int=1)
    assert decode(encode(date(2024, 1, 2))) == date(2024, 1, 2)
