"""The check that chaos rests on can fail: doctored outputs, and what is found in them."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest

from streamstate.partitioning import partition_for
from tests.chaos.checker import Checked, Digest, Output, Truth, check
from tests.chaos.workload import EMPTY, Payment, Total, chained, payments

PARTITIONS = 3
Line = tuple[str, Total]

FED = [
    Payment("ann", 0, 1, 10), Payment("bob", 1, 1, 20), Payment("ann", 0, 2, 30), Payment("ann", 1, 1, 40),
    Payment("bob", 1, 2, 50), Payment("bob", 1, 3, 60),
]  # fmt: skip


def truth_of(fed: list[Payment]) -> Truth:
    truth = Truth()
    for payment in fed:
        truth.add(payment.source, payment.encode())
    assert not truth.problems
    return truth


def applied(fed: list[Payment]) -> list[Line]:
    """What an application without a fault puts out."""
    states: dict[str, Total] = {}
    lines = []
    for payment in fed:
        before = states.get(payment.user, EMPTY)
        states[payment.user] = chained(before, payment.source, payment.number, payment.amount)
        lines.append((payment.user, states[payment.user]))
    return lines


def outputs(lines: list[Line]) -> list[Output]:
    found = []
    for offset, (user, total) in enumerate(lines):
        key = user.encode()
        found.append(Output(partition_for(key, PARTITIONS), offset, key, total.encode().encode()))
    return found


def checked(lines: list[Line], fed: list[Payment] | None = None) -> Checked:
    return check(truth_of(FED if fed is None else fed), outputs(lines), PARTITIONS)


def counts(found: Checked) -> dict[str, int]:
    names = ("missing", "extra", "out_of_order", "wrong", "undercounted")
    return {name: number for name in names if (number := getattr(found, name))}


GOOD = applied(FED)


def test_good_outputs_pass() -> None:
    found = checked(GOOD)
    assert counts(found) == {}
    assert (found.outputs, found.expected) == (6, 6)
    assert found.violations("exactly_once") == found.violations("at_least_once") == 0


def test_sources_of_a_user_may_mix_in_any_order() -> None:
    """Which of two partitions is read first is nobody's promise; the order within each is."""
    other = [FED[index] for index in (3, 0, 1, 2, 4, 5)]
    assert applied(other) != GOOD
    assert counts(checked(applied(other))) == {}
    swapped = [FED[index] for index in (2, 1, 0, 3, 4, 5)]
    # Each output fits the one before it; only the order of ann's payments from source 0 is wrong.
    assert counts(checked(applied(swapped))) == {"out_of_order": 1}


@pytest.mark.parametrize(
    ("doctored", "expected"),
    [
        pytest.param(GOOD[:-1], {"missing": 1, "undercounted": 1}, id="the-last-is-missing"),
        pytest.param(GOOD[1:], {"missing": 1, "wrong": 1}, id="the-first-is-missing"),
        pytest.param([*GOOD[:4], GOOD[5]], {"missing": 1, "wrong": 1}, id="one-within-is-missing"),
        pytest.param([line for line in GOOD if line[0] != "bob"], {"missing": 3, "undercounted": 1}, id="a-user"),
        pytest.param([], {"missing": 6, "undercounted": 2}, id="nothing"),
        pytest.param([*GOOD, GOOD[-1]], {"extra": 1, "wrong": 1}, id="the-last-twice"),
        pytest.param([*GOOD[:3], GOOD[2], *GOOD[3:]], {"extra": 1, "wrong": 1}, id="one-within-twice"),
        pytest.param(
            [*GOOD, ("bob", chained(GOOD[-1][1], 1, 3, 60))], {"extra": 1}, id="a-payment-counted-twice-in-the-state"
        ),
        pytest.param([*GOOD, ("bob", chained(GOOD[-1][1], 1, 4, 60))], {"extra": 1}, id="a-payment-never-made"),
        pytest.param([*GOOD, ("cid", chained(EMPTY, 0, 1, 1))], {"extra": 1}, id="a-user-never-seen"),
        pytest.param([*GOOD[:4], GOOD[5], GOOD[4]], {"out_of_order": 1, "wrong": 2, "undercounted": 1}, id="swapped"),
        pytest.param(
            [*GOOD[:5], ("bob", replace(GOOD[5][1], count=2))], {"wrong": 1, "undercounted": 1}, id="a-wrong-count"
        ),
        pytest.param([*GOOD[:5], ("bob", replace(GOOD[5][1], chain=7))], {"wrong": 1}, id="a-wrong-chain"),
        pytest.param(
            [*GOOD[:5], ("bob", chained(EMPTY, 1, 3, 60))], {"wrong": 1, "undercounted": 1}, id="state-lost-before-it"
        ),
    ],
)
def test_doctored_outputs_are_found(doctored: list[Line], expected: dict[str, int]) -> None:
    found = checked(doctored)
    assert counts(found) == expected
    assert found.violations("exactly_once") == sum(expected.values())
    assert found.violations("at_least_once") == expected.get("missing", 0)
    assert found.shown


def test_a_wrong_value_counts_once() -> None:
    """What follows is held against the wrong one, so that numbers tell how much is wrong."""
    wrong = replace(GOOD[1][1], chain=5)
    follow = [chained(wrong, 1, 2, 50)]
    follow.append(chained(follow[0], 1, 3, 60))
    doctored = [GOOD[0], ("bob", wrong), GOOD[2], GOOD[3], ("bob", follow[0]), ("bob", follow[1])]
    assert counts(checked(doctored)) == {"wrong": 1}


def test_a_wrong_partition_is_found() -> None:
    good = outputs(GOOD)
    moved = [*good[:-1], good[-1]._replace(partition=(good[-1].partition + 1) % PARTITIONS)]
    assert counts(check(truth_of(FED), moved, PARTITIONS)) == {"wrong": 1}


@pytest.mark.parametrize(
    ("key", "value"), [(None, b"1 2 0 1"), (b"ann", None), (b"ann", b"1 2"), (b"\xff", b"1 2 0 1")]
)
def test_what_cannot_be_read_is_wrong(key: bytes | None, value: bytes | None) -> None:
    found = check(truth_of(FED), [*outputs(GOOD), Output(0, 9, key, value)], PARTITIONS)
    assert counts(found) == {"wrong": 1}


def test_input_that_was_not_fed_as_meant_is_found() -> None:
    truth = Truth()
    truth.add(0, Payment("ann", 0, 2, 1).encode())
    truth.add(1, Payment("ann", 0, 1, 1).encode())
    assert len(truth.problems) == 2


def test_digests_differ_by_value_order_and_partition() -> None:
    def digest(*values: tuple[int, bytes]) -> Digest:
        found = Digest()
        for partition, value in values:
            found.add(partition, value)
        return found

    one = digest((0, b"a"), (1, b"b"), (0, b"c"))
    assert one == digest((0, b"a"), (0, b"c"), (1, b"b"))
    for other in (
        digest((0, b"c"), (1, b"b"), (0, b"a")),
        digest((0, b"a"), (0, b"b"), (0, b"c")),
        digest((0, b"a"), (1, b"b")),
        digest((0, b"ac"), (1, b"b"), (0, b"")),
    ):
        assert one != other


def test_payments_come_from_the_seed() -> None:
    first, again = (list(islice(payments(7, 1000, 6), 3000)) for _ in range(2))
    assert first == again
    assert first != list(islice(payments(8, 1000, 6), 3000))
    assert {payment.source for payment in first} == set(range(6))
    roaming = {payment.user for payment in first if payment.source != int(payment.user[5:]) % 6}
    assert roaming, "no user pays from several sources"
    assert counts(checked(applied(first), first)) == {}
    assert Payment.parse(first[0].encode().decode()) == first[0]
