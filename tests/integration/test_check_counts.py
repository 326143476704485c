"""The check that all exactly-once tests rest on can fail."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.integration.support import Record, check_counts, sentences


def outputs(*counts: tuple[str, int], partition: int = 0) -> list[Record]:
    return [Record("t", partition, i, word.encode(), str(count).encode()) for i, (word, count) in enumerate(counts)]


GOOD = (("a", 1), ("b", 1), ("a", 2), ("a", 3))
FED = Counter(a=3, b=1)


def test_exact_counts_pass() -> None:
    check_counts(outputs(*GOOD), FED)
    check_counts([], {})


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([("a", 1), ("b", 1), ("a", 3)], id="gap"),
        pytest.param([("a", 1), ("b", 1), ("a", 2), ("a", 2), ("a", 3)], id="repeat"),
        pytest.param([("a", 1), ("b", 1), ("a", 3), ("a", 2)], id="disorder"),
        pytest.param([("a", 1), ("a", 2), ("a", 3)], id="missing-word"),
        pytest.param([("a", 1), ("b", 1), ("a", 2)], id="missing-end"),
        pytest.param([("b", 1), ("a", 2), ("a", 3)], id="missing-start"),
        pytest.param([*GOOD, ("a", 4)], id="one-too-many"),
        pytest.param([*GOOD, ("c", 1)], id="word-never-fed"),
        pytest.param([("a", 1), ("b", 1), ("a", 1), ("a", 2), ("a", 3)], id="started-over"),
        pytest.param([], id="nothing"),
    ],
)
def test_wrong_counts_fail(wrong: list[tuple[str, int]]) -> None:
    with pytest.raises(AssertionError, match="words are wrong"):
        check_counts(outputs(*wrong), FED)


def test_a_word_in_two_partitions_fails() -> None:
    with pytest.raises(AssertionError, match="partitions"):
        check_counts([*outputs(("a", 1)), *outputs(("a", 2), partition=1)], {"a": 2})


def test_at_least_once_allows_repeats_but_no_loss() -> None:
    repeated = outputs(("a", 1), ("a", 2), ("a", 2), ("a", 3), ("b", 1))
    check_counts(repeated, FED, extras=True)
    with pytest.raises(AssertionError, match="fed 3 times"):
        check_counts(outputs(("a", 1), ("a", 2), ("a", 2), ("b", 1)), FED, extras=True)
    with pytest.raises(AssertionError, match="'b' was fed"):
        check_counts(outputs(*[("a", n) for n in (1, 2, 3)]), FED, extras=True)


def test_the_same_seed_says_the_same() -> None:
    first, second = iter(sentences(7)), iter(sentences(7))
    assert [next(first) for _ in range(50)] == [next(second) for _ in range(50)]
