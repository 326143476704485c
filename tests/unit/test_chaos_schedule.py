"""What chaos does, and what it takes from logs, is decided by the seed and by the engine's own words."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from streamstate import Topology, serde
from tests.chaos.observer import _longest_gap
from tests.chaos.processes import BEGUN, parse_restored
from tests.chaos.schedule import (
    FIRST_PROCESSES,
    FULL,
    KINDS,
    MAX_PROCESSES,
    MIN_PROCESSES,
    SHORT,
    Episode,
    counted,
    schedule,
)
from tests.unit.application_support import Run


def processes(episodes: list[Episode]) -> list[int]:
    """How many there are after each episode."""
    counts = [FIRST_PROCESSES]
    for episode in episodes:
        kinds = [fault.kind for fault in episode.faults]
        more = kinds.count("scale_out") + kinds.count("start_in_restore")
        counts.append(counts[-1] + more - kinds.count("scale_in"))
    return counts


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("counts", [FULL, SHORT])
def test_every_fault_is_planned_and_the_number_of_processes_keeps_its_bounds(seed: int, counts: dict[str, int]) -> None:
    episodes = schedule(seed, counts)
    assert counted(episodes) == {**dict.fromkeys(KINDS, 0), **counts}
    assert all(MIN_PROCESSES <= count <= MAX_PROCESSES for count in processes(episodes))
    assert all(len(episode.faults) <= 2 for episode in episodes)
    assert episodes == schedule(seed, counts)


def test_seeds_differ_and_faults_come_upon_each_other() -> None:
    plans = [schedule(seed, FULL) for seed in range(10)]
    assert all(one != other for one, other in pairwise(plans))
    assert any(len(episode.faults) == 2 for plan in plans for episode in plan)


def test_the_issue_asks_for_as_many() -> None:
    assert FULL["kill"] + FULL["kill_late"] >= 20
    assert FULL["stop"] >= 8
    assert FULL["broker"] >= 4
    assert FULL["scale_out"] + FULL["scale_in"] >= 8
    assert FULL["wipe"] >= 4
    assert FULL["start_in_restore"] >= 1
    assert set(SHORT) == set(FULL) == set(KINDS)
    assert all(SHORT.values())


def test_a_plan_that_ends_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="none of"):
        schedule(1, {"scale_in": 2})


def test_the_engine_says_what_it_restores(caplog: pytest.LogCaptureFixture) -> None:
    topology = Topology("t")
    letters = topology.stream("in", key=serde.string(), value=serde.string())
    letters.group_by_key().count(store="counts").to_stream().to("out")
    run = Run(topology, {"in": 1, "out": 1})
    run.send(b"a", b"b", b"c")
    run.ticks(20)
    with caplog.at_level(logging.INFO, "streamstate.restore"):
        run.app.disks.clear()
        run.restart(close=False)
        run.ticks(40)
    begun = [found for line in caplog.messages if (found := BEGUN.search(line))]
    done = [found for line in caplog.messages if (found := parse_restored(line))]
    assert [found.groups()[:3] for found in begun] == [("in_0", "counts", "0")]
    assert len(done) == 1
    assert (done[0].task, done[0].store, done[0].start, done[0].partition) == ("in_0", "counts", 0, 0)
    assert done[0].records >= 1
    assert done[0].end == int(begun[0][4])


def test_gaps_reach_from_the_last_output_before_to_the_first_after() -> None:
    times = [1.0, 2.0, 5.0, 5.5, 9.0]
    assert _longest_gap(times, 2.5, 4.0) == 3.0
    assert _longest_gap(times, 2.5, 6.0) == 3.5
    assert _longest_gap(times, 5.1, 5.2) == 0.5
    assert _longest_gap(times, 8.0, 12.0) == 3.5
    assert _longest_gap(times, 9.5, 14.0) == 5.0
    assert _longest_gap([], 1.0, 2.0) == 0.0
