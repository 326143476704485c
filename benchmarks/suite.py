"""The order of the runs, and what becomes of each.

Rule of this module: contenders alternate within a case, cases within a round; a run that fails is noted and the rest
goes on; when the time is over, no further round is begun, and each figure says how many runs it comes from.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from benchmarks.contenders import CLIENT, CONTENDERS, Contender
from benchmarks.latency import run_latency
from benchmarks.peers.place import Unavailable
from benchmarks.process import ContenderFailed
from benchmarks.restore import Restores
from benchmarks.runs import Bench, run_limit, run_throughput
from benchmarks.verify import WrongOutput
from benchmarks.workloads import WORKLOADS, Case

__all__ = ["Entry", "Plan", "Results", "all_cases", "contenders_of", "run_suite"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run.

    Attributes:
        cases: in the order of their importance.
        contenders: names to keep to; empty for all.
        rounds: at most.
        minutes: after which no further run of a second or later round is begun; 0 for no limit.
        entries: of the restore workload.
    """

    cases: tuple[Case, ...]
    contenders: tuple[str, ...] = ()
    rounds: int = 3
    minutes: float = 0
    entries: int = 2_000_000

    def takes_part(self, name: str) -> bool:
        """Whether this contender was asked for."""
        return not self.contenders or name in self.contenders


@dataclass(slots=True)
class Entry:
    """One contender in one case.

    Attributes:
        runs: figures of each run that succeeded.
        failures: why others did not.
        missing: why it does not take part at all.
    """

    contender: Contender
    runs: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    missing: str | None = None


@dataclass(slots=True)
class Results:
    """All of it."""

    entries: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def of(self, case: Case, contender: Contender) -> Entry:
        """The entry of this contender, made when there is none."""
        return self.entries.setdefault(case.name, {}).setdefault(contender.name, Entry(contender))


def contenders_of(case: Case, plan: Plan) -> Iterator[Contender]:
    """Who takes part in this case."""
    for name in case.workload.contenders:
        if name == CLIENT.name:
            yield CLIENT
        elif plan.takes_part(name):
            yield CONTENDERS[name]


def run_suite(bench: Bench, plan: Plan, keep: Callable[[Results], None]) -> Results:
    """Run it.

    Args:
        keep: called after every run with what there is, so that nothing is lost when the suite is stopped.
    """
    results = Results()
    with Restores(bench, plan.entries) as restores:
        _rounds(bench, plan, keep, results, restores)
    return results


def _rounds(bench: Bench, plan: Plan, keep: Callable[[Results], None], results: Results, restores: Restores) -> None:
    started = time.monotonic()
    for round_ in range(plan.rounds):
        for case in plan.cases:
            if round_ and plan.minutes and time.monotonic() - started > plan.minutes * 60:
                _tell(f"The {plan.minutes:g} minutes are over: round {round_ + 1} is not completed.")
                return
            for contender in _turned(list(contenders_of(case, plan)), round_):
                entry = results.of(case, contender)
                _attempt(bench, case, entry, restores)
                keep(results)


def _turned(contenders: list[Contender], round_: int) -> Sequence[Contender]:
    """Another one begins in each round, so that nobody always comes after the same neighbour."""
    if not contenders:
        return contenders
    at = round_ % len(contenders)
    return contenders[at:] + contenders[:at]


def _attempt(bench: Bench, case: Case, entry: Entry, restores: Restores) -> None:
    contender = entry.contender
    if entry.missing is None:
        entry.missing = _missing(contender, case.workload.work)
    if entry.missing is not None:
        _tell(f"{case.name:24} {contender.title:40} {entry.missing}")
        return
    try:
        found = _run(bench, case, contender, restores)
    except Unavailable as error:
        entry.missing = str(error)
        _tell(f"{case.name:24} {contender.title:40} {error}")
    except WrongOutput as error:
        _failed(case, entry, f"wrong output: {error}")
    except ContenderFailed as error:
        _failed(case, entry, str(error))
    except Exception as error:  # noqa: BLE001 - a broken run must not end the others; it stands in the report
        _failed(case, entry, f"{type(error).__name__}: {error}")
    else:
        entry.runs.append(found)
        _tell(f"{case.name:24} {contender.title:40} {_line(found)}")


def _missing(contender: Contender, work: str) -> str | None:
    return contender.missing(work)


def _run(bench: Bench, case: Case, contender: Contender, restores: Restores) -> dict[str, Any]:
    match case.workload.kind:
        case "throughput":
            return run_throughput(bench, case, contender)
        case "latency":
            return run_latency(bench, case, contender)
        case "limit":
            return run_limit(bench, case, contender)
        case "restore":
            return restores.run(case, contender)


def _failed(case: Case, entry: Entry, why: str) -> None:
    entry.failures.append(why)
    _tell(f"{case.name:24} {entry.contender.title:40} FAILED: {why}")


def _line(run: dict[str, Any]) -> str:
    if "p99_ms" in run:
        return f"p50 {run['p50_ms']:.0f} ms, p99 {run['p99_ms']:.0f} ms, p99.9 {run['p999_ms']:.0f} ms"
    if "restore_rate" in run:
        return f"{run['restore_rate']:12,.0f} entries/s restored"
    steady = run.get("steady_rate")
    return f"{run['rate']:12,.0f} records/s" + (f", steady {steady:12,.0f}" if steady else "")


def _tell(line: str) -> None:
    print(f"{datetime.now().astimezone():%H:%M:%S}  {line}", file=sys.stderr, flush=True)


def all_cases(names: Sequence[str], intervals_ms: Sequence[int]) -> tuple[Case, ...]:
    """The cases of these workloads: all at their first interval, then the others.

    Args:
        names: of workloads; all when empty.
        intervals_ms: to keep to; each workload's own when empty.
    """
    chosen = [WORKLOADS[name] for name in names or WORKLOADS]
    first, later = [], []
    for workload in chosen:
        asked = [ms for ms in workload.intervals_ms if not intervals_ms or not ms or ms in intervals_ms]
        cases = [Case(workload, ms) for ms in asked]
        first.extend(cases[:1])
        later.extend(cases[1:])
    return (*first, *later)
