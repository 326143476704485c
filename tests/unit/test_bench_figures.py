"""The benchmarks' arithmetic."""

from __future__ import annotations

import pytest

from benchmarks.figures import Sample, median, percentile, ratio, throughput


def samples(*pairs: tuple[float, int], cpu: float = 0.0) -> list[Sample]:
    """Commits seen at these times; with CPU used in proportion to the records."""
    return [Sample(at, committed, committed * cpu) for at, committed in pairs]


def test_the_whole_run_is_from_the_first_record_to_the_last_commit() -> None:
    found = throughput(10.0, samples((11, 100), (12, 300), (14, 400)), 400)
    assert found.whole == 100


def test_the_steady_rate_leaves_out_the_first_half_and_the_last_commit() -> None:
    # Slow at first, 100 a second in the middle, and a last commit that waited for its interval.
    seen = samples((5, 100), (10, 500), (11, 600), (13, 800), (20, 1_000))
    found = throughput(0.0, seen, 1_000)
    assert found.steady == 100
    assert found.whole == 50


def test_the_steady_rate_is_unknown_with_too_few_commits() -> None:
    assert throughput(0.0, samples((1, 100)), 100).steady is None
    assert throughput(0.0, samples((1, 60), (2, 100)), 100).steady is None
    assert throughput(0.0, samples((1, 60), (2, 80), (3, 100)), 100).steady == 20


def test_steady_cpu_is_per_million_records_over_the_same_stretch() -> None:
    seen = samples((1, 500), (2, 700), (3, 900), (4, 1_000), cpu=0.000_01)
    assert throughput(0.0, seen, 1_000).steady_cpu == pytest.approx(10)
    assert throughput(0.0, samples((1, 500), (2, 700), (3, 900), (4, 1_000)), 1_000).steady_cpu is None


def test_observations_that_do_not_reach_the_end_make_no_figure() -> None:
    with pytest.raises(ValueError, match="99 of 100 records"):
        throughput(0.0, samples((1, 99)), 100)
    with pytest.raises(ValueError, match="0 of 100 records"):
        throughput(0.0, [], 100)
    with pytest.raises(ValueError, match="before it began"):
        throughput(2.0, samples((1, 100)), 100)


def test_percentiles_by_nearest_rank() -> None:
    values = list(range(1, 1_001))
    assert [percentile(values, percent) for percent in (0.01, 50, 99, 99.9, 100)] == [1, 500, 990, 999, 1_000]
    assert percentile([7], 99.9) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_the_median_of_what_is_known() -> None:
    assert median([3.0, None, 1.0, 2.0]) == 2
    assert median([1.0, 2.0]) == 1.5
    assert median([None]) is None


def test_a_ratio_needs_both() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is None
    assert ratio(3.0, None) is None
    assert ratio(3.0, 0.0) is None
