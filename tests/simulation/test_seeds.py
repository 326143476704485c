"""Seeds: each is a run of its own, with workers, an input and faults. What is found is printed with the command that
shows it."""

from __future__ import annotations

from collections import Counter

import pytest
from streamstate_cli.simulate import make_campaign

from streamstate.testing.simulation import KINDS, WORKLOADS, Campaign, chosen_kinds

SEEDS = 320
PARTS = 8
ALL = Campaign(None, chosen_kinds(None))


@pytest.mark.parametrize("part", range(PARTS))
def test_seeds(part: int, record_property: pytest.RecordProperty) -> None:
    found = []
    happened: Counter[str] = Counter()
    for seed in range(part, SEEDS, PARTS):
        result = ALL.run(seed)
        happened.update(fault.kind for fault, _ in result.fired)
        if not result.ok:
            found.append(f"streamstate simulate --seed {seed}: {result.problems}")
    record_property("faults", happened.total())
    assert not found, f"{len(found)} seeds are wrong, see them:\n" + "\n".join(found[:5])
    # A simulation in which nothing goes wrong would be clean too.
    assert happened.total() > SEEDS / PARTS * 2
    assert happened["crash"] > 5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fault_happens_by_itself(kind: str) -> None:
    campaign = Campaign(None, (kind,))
    happened = 0
    for seed in range(1_000, 1_400):
        faults = campaign.faults(seed)
        result = campaign.run(seed, faults[:6])
        assert result.ok, f"streamstate simulate --faults {kind} --seed {seed}: {result.problems}"
        assert {fault.kind for fault, _ in result.fired} <= {kind}
        happened += len(result.fired)
        if happened >= 8:
            break
    assert happened >= 8


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_runs_clean_without_faults_and_says_something(workload: str) -> None:
    campaign = make_campaign(None, workload, ())
    for seed in range(6):
        result = campaign.run(seed)
        assert result.ok, result.problems
        assert result.records > 0


def test_a_run_is_the_same_again() -> None:
    for seed in range(40, 50):
        first: list[str] = []
        second: list[str] = []
        assert ALL.run(seed, trace=first.append) == ALL.run(seed, trace=second.append)
        assert first == second
        assert len(first) > 20


@pytest.mark.parametrize("target", ["topologies/word_count.py", "topologies/flight_delays.py"])
def test_a_topology_of_ones_own(target: str) -> None:
    campaign = make_campaign(target, None, chosen_kinds(None))
    for seed in range(20):
        result = campaign.run(seed)
        assert result.ok, f"streamstate simulate --topology {target} --seed {seed}: {result.problems}"
