"""Pictures of a document of results. Needs matplotlib: ``pip install 'streamstate[bench]'``.

Rule of this module: nothing is computed here that the document does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["missing", "write_plots"]

_COLOURS = {"streamstate": "#1b6ca8", "kafka-streams": "#e07b39", "quix": "#7d5ba6", "loop": "#9aa5b1"}
_OTHER = "#cccccc"
_DPI = 130
_MEBI = 1 << 20


def missing() -> str | None:
    """Why there can be no plots, or None."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError:
        return "no plots: matplotlib is not installed; run: pip install 'streamstate[bench]'"
    return None


def write_plots(found: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write what there is to be seen: throughput, CPU, memory, latency.

    Returns:
        The files, those without anything to show left out.
    """
    import matplotlib

    matplotlib.use("Agg")
    throughput = [case for case in found["cases"] if case["kind"] == "throughput"]
    latency = [case for case in found["cases"] if case["kind"] == "latency"]
    restore = [case for case in found["cases"] if case["kind"] == "restore"]
    directory.mkdir(parents=True, exist_ok=True)
    drawn = [
        _bars(
            directory / "throughput.png",
            throughput,
            _rate,
            "records/s, steady half (the whole run in cases where somebody has none)",
        ),
        _bars(directory / "cpu.png", throughput, _median("cpu_s_per_million"), "CPU seconds per million records"),
        _bars(directory / "memory.png", throughput, _median("peak_bytes", _MEBI), "peak memory, MiB"),
        _latencies(directory / "latency.png", latency),
        _bars(directory / "restore.png", restore, _median("restore_rate"), "entries restored per second"),
    ]
    return [path for path in drawn if path is not None]


# The value of a contender in a case.
Value = Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]


def _rate(case: Mapping[str, Any], entry: Mapping[str, Any]) -> float | None:
    """Of the steady half when everybody in the case has one: bars side by side must mean the same."""
    steady = all(other["median"]["steady_rate"] is not None for other in case["contenders"] if other["runs"])
    found: float | None = entry["median"]["steady_rate" if steady else "rate"]
    return found


def _median(metric: str, unit: float = 1) -> Value:
    def value(case: Mapping[str, Any], entry: Mapping[str, Any]) -> float | None:
        found: float | None = entry["median"][metric]
        return None if found is None else found / unit

    return value


def _colour(name: str) -> str:
    return next((colour for prefix, colour in _COLOURS.items() if name.startswith(prefix)), _OTHER)


def _bars(path: Path, cases: Sequence[Mapping[str, Any]], value: Value, label: str) -> Path | None:
    """A group of horizontal bars per case."""
    import matplotlib.pyplot as plt

    rows: list[tuple[str, float, str]] = []
    ticks: list[tuple[float, str]] = []
    at = 0.0
    places: list[float] = []
    for case in cases:
        bars = [(entry["title"], shown, _colour(entry["name"])) for entry in case["contenders"]
                if (shown := value(case, entry)) is not None]  # fmt: skip
        if not bars:
            continue
        ticks.append((at - 0.9, f"{case['title']}, {case['commit_ms']} ms"))
        for bar in bars:
            rows.append(bar)
            places.append(at)
            at += 1
        at += 1.4
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(10, 1 + 0.28 * at), layout="constrained")
    axes.barh(places, [row[1] for row in rows], color=[row[2] for row in rows], height=0.85)
    widest = max(row[1] for row in rows)
    for place, (title, shown, _) in zip(places, rows, strict=True):
        axes.text(shown + widest * 0.01, place, f"{shown:,.0f}  {title}", va="center", fontsize=8)
    for place, title in ticks:
        axes.text(0, place, title, va="center", fontsize=9, fontweight="bold")
    axes.set_xlim(0, widest * 1.5)
    axes.set_ylim(at, -1.6)
    axes.set_yticks([])
    axes.set_xlabel(label)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
    return path


def _latencies(path: Path, cases: Sequence[Mapping[str, Any]]) -> Path | None:
    """p50, p99 and p99.9 of each contender, per case, on a logarithmic scale."""
    import matplotlib.pyplot as plt

    shown = [case for case in cases if any(entry["runs"] for entry in case["contenders"])]
    if not shown:
        return None
    figure, every = plt.subplots(1, len(shown), figsize=(5 * len(shown), 3.6), squeeze=False, layout="constrained")
    for axes, case in zip(every[0], shown, strict=True):
        for entry in case["contenders"]:
            if entry["runs"]:
                values = [entry["median"][metric] for metric in ("p50_ms", "p99_ms", "p999_ms")]
                axes.plot(range(3), values, marker="o", color=_colour(entry["name"]), label=entry["title"])
        axes.set_xticks(range(3), ["p50", "p99", "p99.9"])
        axes.set_yscale("log")
        axes.set_ylabel("ms")
        axes.set_title(case["title"], fontsize=9)
        axes.grid(visible=True, axis="y", alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
    return path
