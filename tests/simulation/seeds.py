"""What every family of workloads has to show: many seeds are right, and the lack of a safeguard is noticed.

Rule of this module: each check says which seed it was, and the command that replays it.
"""

from __future__ import annotations

from collections import Counter

from streamstate.testing.simulation import Campaign, chosen_kinds, find_workload
from streamstate.testing.simulation.run import Result

__all__ = ["first_wrong", "seeds_are_right"]


def seeds_are_right(workload: str, seeds: int) -> None:
    """Seeds from 0 on, with every kind of fault, find nothing wrong, and crashes are among their faults."""
    campaign = Campaign(find_workload(workload), chosen_kinds(None))
    found = []
    happened: Counter[str] = Counter()
    for seed in range(seeds):
        result = campaign.run(seed)
        happened.update(fault.kind for fault, _ in result.fired)
        if not result.ok:
            found.append(f"streamstate simulate --workload {workload} --seed {seed}: {result.problems}")
    assert not found, f"{len(found)} seeds are wrong, see them:\n" + "\n".join(found[:3])
    assert happened["crash"] > 5


def first_wrong(workload: str, seeds: int) -> Result | None:
    """The first run, of seeds from 0 on, in which something is found wrong; None when there is none."""
    campaign = Campaign(find_workload(workload), chosen_kinds(None))
    results = (campaign.run(seed) for seed in range(seeds))
    return next((result for result in results if not result.ok), None)
