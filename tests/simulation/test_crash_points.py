"""Every port call of a run is a crash point, before and behind it; and every error a port may raise is raised there.

The steps of the engine, and the calls between which a crash can fall:

====================  =========================================================================================
becoming a member     consumer.subscribe, consumer.poll (rebalance callbacks run inside)
taking the id         producer.init (aborts what the predecessor left open)
opening a task        admin.config, consumer.committed, admin.log_ends, admin.log_starts, admin.topics
restoring             restore.assign, restore.poll, restore.positions
starting              consumer.start
processing            consumer.poll, consumer.group_metadata, producer.begin, producer.send
committing            producer.send (changelog), producer.flush, producer.send_offsets, producer.commit,
                      then the stores: between producer.commit and the next call
cleaning              admin.delete_records
giving partitions up  the same commit within consumer.poll or consumer.close, then consumer.pause
leaving               consumer.close, producer.close, restore.close
====================  =========================================================================================

Afterwards the run must end caught up, within the steps the scenario has, with every word's outputs exactly 1, 2, ... n,
every committed offset behind everything that was processed, and every store equal to its changelog.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import pytest

from tests.simulation.scenario import (
    CHANGING,
    ERRORS,
    PROTOCOLS,
    TIMED,
    TRUTH,
    Fault,
    Protocol,
    Violation,
    calls_of,
    simulate,
)

EVERY_PROTOCOL = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of runs with a fault each have nothing to say in the log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def violations(faults: Iterable[Fault], *, may_miss: bool = False) -> list[str]:
    """What the runs found, all of it. ``may_miss``: the call may fail by itself, so that nothing comes behind it."""
    found = []
    for fault in faults:
        try:
            scenario = simulate(fault)
        except Violation as violation:
            found.append(str(violation))
        else:
            assert may_miss or scenario.fired is not None, f"the run never came to {fault}"
    return found


def report(found: list[str]) -> str:
    return f"{len(found)} violations, the first ones:\n\n" + "\n\n".join(found[:5])


@EVERY_PROTOCOL
def test_the_run_without_a_fault_is_right_and_meets_every_step(protocol: Protocol) -> None:
    calls = calls_of(protocol)
    # Each step of the table at the top is there to be crashed at.
    assert {"consumer.subscribe", "producer.init", "consumer.committed", "admin.log_ends", "restore.poll",
            "consumer.start", "producer.send_offsets", "producer.commit", "admin.delete_records",
            "consumer.close", "producer.close"} <= set(calls)  # fmt: skip
    assert max(TRUTH.values()) == 5
    assert calls == tuple(call for _, call in simulate(Fault("none", protocol)).calls)[: len(calls)]


@EVERY_PROTOCOL
def test_a_crash_at_any_call_with_the_state_directory_kept(protocol: Protocol) -> None:
    found = violations(
        Fault("crash", protocol, number, phase)
        for number, call in enumerate(calls_of(protocol), 1)
        for phase in ("before", "after")
        if phase == "before" or call in CHANGING
    )
    assert not found, report(found)


@EVERY_PROTOCOL
def test_a_crash_at_any_call_with_the_state_directory_lost_or_put_back(protocol: Protocol) -> None:
    turn = PROTOCOLS.index(protocol)
    found = violations(
        # Every call meets both over the protocols.
        Fault(
            "crash", protocol, number, "after" if call in CHANGING else "before", ("lost", "older")[(number + turn) % 2]
        )
        for number, call in enumerate(calls_of(protocol), 1)
    )
    assert not found, report(found)


@EVERY_PROTOCOL
def test_a_crash_at_any_call_while_markers_are_late(protocol: Protocol) -> None:
    found = violations(
        Fault("crash", protocol, number, phase, markers="late")
        for number, call in enumerate(calls_of(protocol, "late"), 1)
        for phase in ("before", "after")
        if phase == ("after" if call in CHANGING else "before")
    )
    assert not found, report(found)


@EVERY_PROTOCOL
@pytest.mark.parametrize("kind", ["expel", "pause"])
def test_a_worker_that_loses_its_membership_at_any_call(protocol: Protocol, kind: str) -> None:
    found = violations(
        Fault(kind, protocol, number, markers=markers)
        for markers in ("prompt", "late")
        for number, call in enumerate(calls_of(protocol, markers), 1)
        if call != "consumer.subscribe" and (markers == "prompt" or call in CHANGING)
    )
    assert not found, report(found)


@EVERY_PROTOCOL
def test_an_error_at_any_call_before_and_behind_it(protocol: Protocol) -> None:
    found = violations(
        Fault(error.__name__, protocol, number, phase)
        for number, call in enumerate(calls_of(protocol), 1)
        for phase in ("before", "after")
        for error in ERRORS.get(call, {}).get(phase, ())
    )
    assert not found, report(found)


@EVERY_PROTOCOL
def test_a_commit_whose_time_runs_out_is_unknown_not_failed(protocol: Protocol) -> None:
    found = violations(
        Fault("timeout", protocol, number, phase)
        for number, call in enumerate(calls_of(protocol), 1)
        for phase in ("before", "after")
        if call in TIMED
    )
    assert not found, report(found)


@EVERY_PROTOCOL
def test_at_least_once_nothing_is_missing(protocol: Protocol) -> None:
    guarantee = "at_least_once"
    calls = calls_of(protocol, guarantee=guarantee)
    assert "producer.commit" not in calls
    found = violations(
        Fault(kind, protocol, number, phase, guarantee=guarantee)
        for number, call in enumerate(calls, 1)
        for phase in ("before", "after")
        for kind in ("crash", *(error.__name__ for error in ERRORS.get(call, {}).get(phase, ())))
        if phase == "before" or call in CHANGING or call == "consumer.commit"
    )
    assert not found, report(found)


@EVERY_PROTOCOL
@pytest.mark.parametrize("kind", ["crash", "expel", "timeout", "error"])
def test_any_fault_while_the_worker_goes_on_beside_its_commits(protocol: Protocol, kind: str) -> None:
    calls = calls_of(protocol, commits="late")
    faults = (
        Fault(name, protocol, number, phase, disk, commits="late")
        for number, call in enumerate(calls, 1)
        for phase in ("before", "after")
        for name, disk in _kinds(kind, call, phase, number)
    )
    # A commit that begins before a rebalance and goes on after it is refused.
    found = violations(faults, may_miss=True)
    assert not found, report(found)


@pytest.mark.parametrize("kind", ["crash", "expel", "timeout", "error"])
def test_any_fault_while_what_windows_keep_has_two_layers(kind: str) -> None:
    found = violations(
        (
            Fault(name, "cooperative", number, phase, disk, commits="late", store="sessions")
            for number, call in enumerate(calls_of("cooperative", commits="late", store="sessions"), 1)
            for phase in ("before", "after")
            for name, disk in _kinds(kind, call, phase, number)
        ),
        may_miss=True,
    )
    assert not found, report(found)


def _kinds(kind: str, call: str, phase: str, number: int) -> list[tuple[str, str]]:
    if kind == "error":
        return [(error.__name__, "kept") for error in ERRORS.get(call, {}).get(phase, ())]
    if kind == "crash" and (phase == "before" or call in CHANGING):
        return [("crash", ("kept", "older", "lost")[number % 3])]
    if (kind == "timeout" and call in TIMED) or (
        kind == "expel" and phase == "before" and call != "consumer.subscribe"
    ):
        return [(kind, "kept")]
    return []
