"""From results to a document, and from the document to Markdown.

Rule of this module: the document holds every run, so that a table can be made again without measuring again; a ratio
is always one of medians over the runs of one suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.figures import median, ratio
from benchmarks.suite import Entry, Plan, Results, contenders_of
from benchmarks.workloads import GOALS, Case, Goal

__all__ = ["document", "markdown"]

_METRICS = (
    "rate",
    "steady_rate",
    "cpu_user_s_per_million",
    "cpu_system_s_per_million",
    "cpu_s_per_million",
    "steady_cpu_s_per_million",
    "peak_bytes",
    "outputs",
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "feeder_lateness_ms",
    "restore_rate",
    "from_start_s",
)
_MEBI = 1 << 20
# Ours, wherever it takes part.
_OWN = "streamstate"


def document(results: Results, plan: Plan, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, with medians and the goals."""
    cases = [_case(case, results, plan) for case in plan.cases]
    return {"meta": dict(meta), "cases": cases, "goals": [_goal(goal, cases) for goal in GOALS]}


def _case(case: Case, results: Results, plan: Plan) -> dict[str, Any]:
    workload = case.workload
    measured = results.entries.get(case.name, {})
    entries = [measured.get(contender.name, Entry(contender)) for contender in contenders_of(case, plan)]
    return {
        "name": case.name,
        "workload": workload.name,
        "title": workload.title,
        "kind": workload.kind,
        "commit_ms": case.commit_ms,
        "note": workload.note,
        "contenders": [_entry(entry) for entry in entries],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.contender.name,
        "title": entry.contender.title,
        "missing": entry.missing,
        "failures": list(entry.failures),
        "runs": list(entry.runs),
        "median": {name: median(run.get(name) for run in entry.runs) for name in _METRICS},
    }


def _goal(goal: Goal, cases: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A goal with what was measured: at the workload's first commit interval."""
    case = next((case for case in cases if case["workload"] == goal.workload), None)
    found: dict[str, Any] = {
        "workload": goal.workload,
        "against": goal.against,
        "metric": goal.metric,
        "bound": goal.bound,
        "at_most": goal.is_limit,
        "value": None,
        "whole": None,
        "met": None,
    }
    if case is None:
        return found
    own = next((c for c in case["contenders"] if c["name"].startswith(_OWN)), None)
    other = next((c for c in case["contenders"] if c["name"] == goal.against), None)
    if own is None or other is None:
        return found
    if goal.metric == "rate":
        found["whole"] = _ratio(own, other, "rate")
        steady = _ratio(own, other, "steady_rate")
        found["value"] = found["whole"] if steady is None else steady
    else:
        name = {"memory": "peak_bytes", "p99": "p99_ms", "restore": "restore_rate"}[goal.metric]
        found["value"] = _ratio(own, other, name)
    found["met"] = None if found["value"] is None else goal.met(found["value"])
    return found


def _ratio(own: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> float | None:
    return ratio(own["median"][metric], other["median"][metric])


# -- Markdown ----------------------------------------------------------------------------------------------


def markdown(found: Mapping[str, Any], plots: Sequence[str] = ()) -> str:
    """The document for people.

    Args:
        plots: paths of images to show, relative to where the text will be.
    """
    parts = [_about(found["meta"]), _goals(found["goals"])]
    parts += [f"![{path.rpartition('/')[2].removesuffix('.png')}]({path})" for path in plots]
    parts += [_section(case) for case in found["cases"]]
    return "\n\n".join(parts) + "\n"


def _about(meta: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in meta.items())


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    rule = ["---"] * text_columns + ["---:"] * (len(heads) - text_columns)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def _goals(goals: Iterable[Mapping[str, Any]]) -> str:
    names = {"rate": "records/s", "memory": "peak memory", "p99": "p99 latency", "restore": "entries/s restored"}
    rows = []
    for goal in goals:
        met = {None: "not measured", True: "yes", False: "**no**"}[goal["met"]]
        sign = "at most" if goal["at_most"] else "at least"
        wanted = [goal["workload"], goal["against"], names[goal["metric"]], f"{sign} {goal['bound']:g}"]
        rows.append([*wanted, _number(goal["value"], 2), _number(goal["whole"], 2), met])
    heads = ["workload", "against", "ours divided by theirs", "goal", "measured", "whole run", "reached"]
    return "## Goals\n\n" + _table(heads, rows, 3)


def _section(case: Mapping[str, Any]) -> str:
    interval = f", commit interval {case['commit_ms']} ms" if case["commit_ms"] else ""
    parts = [f"## {case['title'][0].upper()}{case['title'][1:]}{interval}"]
    if case["note"]:
        parts.append(case["note"])
    shown = [entry for entry in case["contenders"] if entry["runs"]]
    own = next((entry for entry in shown if entry["name"].startswith(_OWN)), None)
    if shown:
        columns = _COLUMNS[case["kind"]]
        heads = ["contender", *(head for head, _ in columns), "runs"]
        rows = [[_title(entry), *(cell(entry, own) for _, cell in columns), str(len(entry["runs"]))] for entry in shown]
        parts.append(_table(heads, rows))
    absent = [f"- {entry['title']}: {entry['missing']}" for entry in case["contenders"] if entry["missing"]]
    failed = [
        f"- {entry['title']}: a run failed: {failure.splitlines()[0]}"
        for entry in case["contenders"]
        for failure in entry["failures"]
    ]
    waiting = [
        f"- {entry['title']}: not run"
        for entry in case["contenders"]
        if not (entry["runs"] or entry["missing"] or entry["failures"])
    ]
    if absent or failed or waiting:
        parts.append("\n".join([*absent, *failed, *waiting]))
    return "\n\n".join(parts)


def _title(entry: Mapping[str, Any]) -> str:
    return f"{entry['title']} ({entry['runs'][0]['records']:,} records)"


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _plain(metric: str, digits: int = 0, unit: float = 1) -> Any:
    def cell(entry: Mapping[str, Any], own: Mapping[str, Any] | None) -> str:
        value = entry["median"][metric]
        return _number(None if value is None else value / unit, digits)

    return cell


def _against(*metrics: str) -> Any:
    """Ours divided by theirs, of the first metric that both have."""

    def cell(entry: Mapping[str, Any], own: Mapping[str, Any] | None) -> str:
        if own is None or own is entry:
            return ""
        found = (_ratio(own, entry, metric) for metric in metrics)
        return _number(next((value for value in found if value is not None), None), 2)

    return cell


_COST = [
    ("CPU s per million, user", _plain("cpu_user_s_per_million", 1)),
    ("system", _plain("cpu_system_s_per_million", 1)),
    ("peak MiB", _plain("peak_bytes", 0, _MEBI)),
]
_COLUMNS: Mapping[str, list[tuple[str, Any]]] = {
    "throughput": [
        ("records/s, steady half", _plain("steady_rate")),
        ("whole run", _plain("rate")),
        ("ours ÷ this, steady", _against("steady_rate", "rate")),
        ("whole", _against("rate")),
        *_COST,
        ("CPU s per million, steady half", _plain("steady_cpu_s_per_million", 1)),
        ("records written", _plain("outputs")),
    ],
    "latency": [
        ("p50 ms", _plain("p50_ms")),
        ("p99 ms", _plain("p99_ms")),
        ("p99.9 ms", _plain("p999_ms")),
        ("ours ÷ this, p99", _against("p99_ms")),
        ("feeder late by at most, ms", _plain("feeder_lateness_ms")),
        ("CPU s per million", _plain("cpu_s_per_million", 1)),
        ("peak MiB", _plain("peak_bytes", 0, _MEBI)),
    ],
    "restore": [
        ("entries/s", _plain("restore_rate")),
        ("ours ÷ this", _against("restore_rate")),
        ("s from start to restored", _plain("from_start_s", 1)),
        *_COST,
    ],
    "limit": [("records/s", _plain("rate")), *_COST],
}
