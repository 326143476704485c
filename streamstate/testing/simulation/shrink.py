"""From the faults of a run that failed to a few that suffice.

Rule of this module: it only leaves faults out; what it returns was seen to fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamstate.testing.simulation.faults import Fault

__all__ = ["shrink"]

MOST_RUNS = 300


def shrink(faults: Sequence[Fault], fails: Callable[[Sequence[Fault]], bool]) -> tuple[Fault, ...]:
    """Leave out faults, in halves, quarters and so on, as long as the run still fails (delta debugging).

    Args:
        faults: with which it fails.
        fails: runs with some of them.

    Returns:
        A list from which no single fault can be left out; fewer than all of that after ``MOST_RUNS`` runs.

    >>> faults = [Fault(number, "pause", 0, "*") for number in range(8)]
    >>> [fault.number for fault in shrink(faults, lambda some: {2, 5} <= {fault.number for fault in some})]
    [2, 5]
    """
    if fails(()):
        return ()
    current = tuple(faults)
    runs, pieces = 1, 2
    while len(current) > 1 and runs < MOST_RUNS:
        size = -(-len(current) // pieces)
        for start in range(0, len(current), size):
            rest = current[:start] + current[start + size :]
            runs += 1
            if fails(rest):
                current, pieces = rest, max(2, pieces - 1)
                break
        else:
            if size == 1:
                break
            pieces = min(len(current), pieces * 2)
    return current
