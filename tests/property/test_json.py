"""The JSON serde: integers of any size come and go as they are, and what JSON does not have is refused."""

from __future__ import annotations

import json as standard
from dataclasses import dataclass
from enum import Enum
from math import inf, nan
from sys import float_info
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamstate import serde

JSON, SORTED = serde.json(), serde.json(sort_keys=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# Near the bounds of 64 bits, where one digit more or less decides.
EDGES = st.builds(
    lambda bound, by: bound + by,
    st.sampled_from([-(2**63), 2**63, 2**64, 10**18, 10**19, 10**20, -(10**18), -(10**19)]),
    st.integers(-2, 2),
)
NUMBERS = st.integers() | EDGES | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
# Text that looks like what the serde looks for.
DIGITS = st.text("0123456789-+.eE nul", max_size=45)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXT | DIGITS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT | DIGITS, inner, max_size=4),
    max_leaves=15,
)


def typed(value: Any) -> Any:
    """Equal for equal values of equal types only: 1.0 is not 1, and True is not 1."""
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return [(key, typed(item)) for key, item in value.items()]
    return type(value), repr(value)


def compact(value: Any) -> bytes:
    return standard.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@given(VALUES)
@example(2**64)
@example(-(2**63) - 1)
@example([2**64 - 1, -(2**63), 10**18])
@example({"00000000000000000000": 1, "x": "-0000000000000000000"})
@example({"x": "1" * 5_000, "1" * 5_000: 2**64})
def test_what_is_written_is_read(value: Any) -> None:
    assert typed(JSON.deserialize(JSON.serialize(value))) == typed(value)
    assert JSON.deserialize(SORTED.serialize(value)) == value


@given(VALUES)
def test_what_others_write_is_read(value: Any) -> None:
    assert typed(JSON.deserialize(compact(value))) == typed(value)
    assert typed(JSON.deserialize(standard.dumps(value, indent=1).encode())) == typed(value)


@given(VALUES)
def test_what_is_written_is_what_others_write(value: Any) -> None:
    """But for the spelling of floats, which is orjson's."""
    assert typed(standard.loads(JSON.serialize(value))) == typed(value)


@given(st.dictionaries(TEXT, NUMBERS, max_size=5))
def test_sorted_keys_make_equal_objects_equal_bytes(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert SORTED.serialize(value) == SORTED.serialize(turned)


@given(st.integers(2**64, 10**40), st.integers(2**64, 10**40))
def test_keys_of_different_integers_are_different(one: int, other: int) -> None:
    assert (JSON.serialize(one) == JSON.serialize(other)) is (one == other)
    assert JSON.serialize(JSON.deserialize(b"%d" % one)) == b"%d" % one


@given(VALUES.filter(lambda value: b"null" not in compact(value)), st.sampled_from([nan, inf, -inf]), st.data())
def test_what_json_does_not_have_is_refused(value: Any, number: float, data: st.DataObject) -> None:
    places = [[value, number], {"a": value, "b": number, "c": None}, {"null": [number, None]}, (number,), number]
    with pytest.raises(ValueError, match="JSON has no NaN and no infinities"):
        data.draw(st.sampled_from([JSON, SORTED])).serialize(data.draw(st.sampled_from(places)))


@dataclass
class Row:
    x: Any


class Kind(Enum):
    NOTHING = nan
    SOMETHING = 1.5


@pytest.mark.parametrize("made", [JSON, SORTED], ids=["json", "sorted"])
@pytest.mark.parametrize(
    "value", [Row(nan), {"a": [Row(Row(inf))]}, Kind.NOTHING, [2**70, nan], {"a": None, "b": Row(nan)}]
)
def test_nan_is_found_wherever_orjson_goes(made: serde.Serde[Any], value: Any) -> None:
    with pytest.raises(ValueError, match="JSON has no NaN"):
        made.serialize(value)


def test_none_is_no_nan() -> None:
    for value in (
        None,
        [None],
        {"a": None},
        {"null": "null"},
        Row(None),
        {"a": {"b": None}, "c": None},
        Kind.SOMETHING,
    ):
        assert JSON.serialize(value) == orjson.dumps(value)


def test_integers_beyond_the_range_of_floats_are_neither_written_nor_read() -> None:
    most = int(float_info.max)
    assert JSON.deserialize(JSON.serialize([most, -most])) == [most, -most]
    for number in (2**1024, -(10**400), 10**5_000):
        with pytest.raises(OverflowError, match="too large to convert to float"):
            JSON.serialize([number])
    for wire in (b"1" * 400, b"[-" + b"1" * 5_000 + b"]"):
        with pytest.raises(orjson.JSONDecodeError, match="infinity"):
            JSON.deserialize(wire)


@pytest.mark.parametrize(
    "wire",
    [
        *(b"NaN", b"Infinity", b"[1e400]", b'{"a":NaN,"b":18446744073709551616}'),
        *(b"018446744073709551616", b"1844674407370955161-", b'["\\ud800",18446744073709551616]'),
    ],
)
def test_what_is_no_json_is_refused_beside_large_integers_too(wire: bytes) -> None:
    """The standard library, which reads those, takes more than JSON."""
    with pytest.raises(orjson.JSONDecodeError):
        JSON.deserialize(wire)
