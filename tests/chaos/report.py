"""What was found, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tests.chaos.outcome import Outcome, PhaseReport
from tests.chaos.schedule import KINDS

__all__ = ["as_json", "draw"]

TITLES = {
    "kill": "SIGKILL, replaced at once",
    "kill_late": "SIGKILL, taken over first",
    "stop": "SIGSTOP past the session, SIGCONT",
    "broker": "broker SIGKILL and restart",
    "scale_out": "one process more",
    "scale_in": "one process less (SIGTERM)",
    "wipe": "SIGKILL, state directory deleted",
    "start_in_restore": "the same, and one more in the restore",
}
TOGETHER = "two of these at once"


def _groups(report: PhaseReport) -> dict[str, list[Outcome]]:
    """Episodes by their only fault; those of two faults stand together."""
    found: dict[str, list[Outcome]] = {kind: [] for kind in KINDS}
    found[TOGETHER] = []
    for outcome in report.outcomes:
        found[outcome.kinds[0] if len(outcome.kinds) == 1 else TOGETHER].append(outcome)
    return {kind: outcomes for kind, outcomes in found.items() if outcomes}


def _spread(values: Iterable[float], digits: int = 1) -> tuple[str, str]:
    """Median and maximum, or dashes."""
    found = list(values)
    if not found:
        return "-", "-"
    return f"{median(found):.{digits}f}", f"{max(found):.{digits}f}"


def draw(reports: Sequence[PhaseReport]) -> RenderableType:
    """The tables."""
    parts: list[RenderableType] = []
    for report in reports:
        parts += [_faults(report), Text(), _verdict(report), Text()]
    return Group(*parts)


def _faults(report: PhaseReport) -> Table:
    table = Table(
        title=f"{report.guarantee}: faults", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    table.add_column("Fault", no_wrap=True)
    for heading in ("Times", "Down (s)\nmedian", "\nmaximum", "Readers blocked (s)\nmedian", "\nmaximum",
                    "Records\nrestored", "\nneeded"):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, outcomes in _groups(report).items():
        restores = [restore for outcome in outcomes for restore in outcome.restores]
        table.add_row(
            TITLES.get(kind, kind),
            str(len(outcomes)),
            *_spread(outcome.downtime_s for outcome in outcomes),
            *_spread((seconds for outcome in outcomes for seconds in outcome.blocked_s), 2),
            f"{sum(restore.records for restore in restores):,}",
            f"{sum(restore.needed for restore in restores):,}",
        )
    return table


def _verdict(report: PhaseReport) -> Table:
    checked = report.checked
    kept = [restore for outcome in report.outcomes for restore in outcome.restores if restore.kept]
    table = Table(title=f"{report.guarantee}: verdict", title_justify="left", box=None, pad_edge=False,
                  padding=(0, 2, 0, 0), show_header=False)  # fmt: skip
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    kills = sum(report.faults[kind] for kind in ("kill", "kill_late", "wipe", "start_in_restore"))
    rows: list[tuple[str, Any]] = [
        ("records fed", report.records),
        ("partitions", report.partitions),
        ("processes started", report.processes),
        ("  that gave up: no broker at their start", report.gave_up),
        ("SIGKILLs of a process", kills),
        ("outputs compared", checked.outputs),
        ("missing", checked.missing),
        ("extra", checked.extra),
        ("out of order", checked.out_of_order),
        ("wrong value", checked.wrong),
        ("users counted too low in the end", checked.undercounted),
        ("transactions committed", report.committed_transactions),
        ("transactions aborted", report.aborted_transactions),
        ("stores restored on a killed process' state", len(kept)),
        ("  records restored", sum(restore.records for restore in kept)),
        ("  committed since their last applied commits", sum(restore.needed for restore in kept)),
        ("violations", len(report.violations)),
    ]
    for name, number in rows:
        table.add_row(name, f"{number:,}")
    table.add_row("seed, seconds", f"{report.seed}, {report.seconds:.0f}")
    return table


def as_json(reports: Sequence[PhaseReport]) -> dict[str, Any]:
    """Everything, with each episode and each restore."""
    phases = []
    for report in reports:
        summary = {
            kind: {
                "episodes": len(outcomes),
                "downtime_s": _numbers(outcome.downtime_s for outcome in outcomes),
                "readers_blocked_s": _numbers(s for outcome in outcomes for s in outcome.blocked_s),
                "restored": sum(restore.records for outcome in outcomes for restore in outcome.restores),
                "needed": sum(restore.needed for outcome in outcomes for restore in outcome.restores),
            }
            for kind, outcomes in _groups(report).items()
        }
        phases.append({**asdict(report), "summary": summary})
    return {"violations": sum(len(report.violations) for report in reports), "phases": phases}


def _numbers(values: Iterable[float]) -> dict[str, float] | None:
    found = list(values)
    return {"median": round(median(found), 3), "maximum": round(max(found), 3)} if found else None
