"""From observations to figures.

Rule of this module: pure arithmetic. A figure that the observations do not support is None, never a guess.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Sample", "Throughput", "median", "percentile", "ratio", "throughput"]

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        at: seconds on the monotonic clock.
        committed: input records committed by then.
        cpu_s: CPU seconds used by then; 0 where that is not known.
    """

    at: float
    committed: int
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """Records per second of one run.

    Attributes:
        whole: from its first record to the commit of its last.
        steady: between commits in its second half, the last commit left out, because it may have come late for want
            of input; None when that leaves fewer than two commits.
        steady_cpu: CPU seconds per million records over the same stretch; None where CPU is not known.
    """

    whole: float
    steady: float | None
    steady_cpu: float | None


def throughput(first: float, samples: Sequence[Sample], records: int) -> Throughput:
    """The rates of a run.

    Args:
        first: when it had its first record.
        samples: one per observed commit, in order; the last one has all records.
        records: how many there are.

    Raises:
        ValueError: the samples do not reach all records, or end before the first record.
    """
    if not samples or samples[-1].committed < records:
        raise ValueError(f"{samples[-1].committed if samples else 0} of {records} records were seen committed")
    end = samples[-1]
    if end.at <= first:
        raise ValueError("the run ended before it began")
    whole = records / (end.at - first)
    late = [sample for sample in samples if sample.committed * 2 >= records]
    late = late[:-1]
    if len(late) < 2 or late[-1].at <= late[0].at:
        return Throughput(whole, None, None)
    passed = late[-1].committed - late[0].committed
    used = late[-1].cpu_s - late[0].cpu_s
    return Throughput(
        whole, passed / (late[-1].at - late[0].at), used * _MILLION / passed if used > 0 and passed > 0 else None
    )


def median(values: Iterable[float | None]) -> float | None:
    """The median of those that are known; None when none is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least this share of all values does not exceed (nearest rank).

    Args:
        ordered: ascending, not empty.
        percent: above 0, up to 100.

    >>> percentile([1, 2, 3, 4], 50), percentile([1, 2, 3, 4], 99)
    (2, 4)
    """
    if not ordered:
        raise ValueError("no values to take a percentile of")
    # In thousandths, because 99.9 has no exact binary form.
    rank = math.ceil(round(percent * 1_000) * len(ordered) / 100_000)
    return ordered[max(rank, 1) - 1]


def ratio(value: float | None, other: float | None) -> float | None:
    """How many times ``other`` is ``value``; None when one of them is not known."""
    return None if value is None or not other else value / other
