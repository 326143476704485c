"""Draws the timelines of docs/windows.md. What is in them is not drawn by hand: each is what a topology made of its
records, by the TopologyTestDriver.

Run it with: python docs/timelines/draw.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from streamstate import Table, Topology, Windowed, serde, windows
from streamstate.testing import TopologyTestDriver

WIDTH, LEFT, RIGHT = 760, 20, 20
ROW, BAR = 30, 22
INK, SOFT, FILL, LATE = "#1f2937", "#9ca3af", "#bfdbfe", "#fca5a5"


@dataclass(frozen=True, slots=True)
class Mark:
    """A record: its time, what stands at it, and whether nothing took it."""

    time: int
    label: str
    late: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A window: from, to, what stands in it; ``closed`` says that its end is part of it."""

    start: int
    end: int
    label: str
    closed: bool = False


def svg(title: str, marks: Sequence[Mark], bars: Sequence[Bar], end: int, *, step: int, unit: str = "s") -> str:
    """One picture.

    Args:
        title: for readers that cannot see it.
        marks: on the axis.
        bars: above it, each in the lowest row that is free.
        end: of the axis, which starts at 0.
        step: between its labels.
        unit: of the labels.
    """
    rows: list[int] = []
    placed: list[tuple[int, Bar]] = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.end)):
        row = next((index for index, until in enumerate(rows) if until <= bar.start), len(rows))
        rows[row : row + 1] = [bar.end + bar.closed]
        placed.append((row, bar))
    axis = 24 + ROW * len(rows) + 26
    height = axis + 34

    def x(time: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * time / end, 1)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}" role="img" aria-label="{escape(title)}">',
        f"  <title>{escape(title)}</title>",
        f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for row, bar in placed:
        top = axis - 26 - ROW * (row + 1) + (ROW - BAR)
        left, width = x(bar.start), round(max(x(min(bar.end, end)) - x(bar.start), 4), 1)
        out.append(f'  <rect x="{left}" y="{top}" width="{width}" height="{BAR}" rx="4" fill="{FILL}" stroke="{INK}"/>')
        middle = round(left + width / 2, 1)
        out.append(f'  <text x="{middle}" y="{top + 15}" text-anchor="middle">{escape(bar.label)}</text>')
    out.append(f'  <line x1="{LEFT}" y1="{axis}" x2="{WIDTH - RIGHT}" y2="{axis}" stroke="{INK}"/>')
    for time in range(0, end + 1, step):
        out.append(f'  <line x1="{x(time)}" y1="{axis - 4}" x2="{x(time)}" y2="{axis + 4}" stroke="{INK}"/>')
        out.append(f'  <text x="{x(time)}" y="{axis + 26}" text-anchor="middle" fill="{SOFT}">{time} {unit}</text>')
    for mark in marks:
        fill = LATE if mark.late else INK
        out.append(f'  <circle cx="{x(mark.time)}" cy="{axis}" r="5" fill="{fill}" stroke="{INK}"/>')
        out.append(f'  <text x="{x(mark.time)}" y="{axis - 10}" text-anchor="middle">{escape(mark.label)}</text>')
    return "\n".join([*out, "</svg>", ""])


def newest(topology: Topology, records: Sequence[tuple[int, str]]) -> dict[Windowed[str], Any]:
    """What a topology has made of records (time in seconds, value) with one key, by window."""
    with TopologyTestDriver(topology) as driver:
        for time, value in records:
            driver.input("in").pipe("k", value, timestamp=time * 1_000)
        found: dict[Windowed[str], Any] = driver.output("out").newest()
    return {windowed: value for windowed, value in found.items() if value is not None}


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def values_of(made: Any) -> Topology:
    """Values of each window, side by side."""
    topology = Topology("timeline")
    records = topology.stream("in", key=serde.string(), value=serde.string()).group_by_key()
    table: Table[Any, str] = records.windowed_by(made).reduce(lambda one, other: f"{one} {other}", store="s")
    table.to_stream().to("out")
    return topology


def timeline(title: str, made: Any, records: Sequence[tuple[int, str]], end: int, step: int = 5) -> str:
    """Records of one key and the windows that they end up in."""
    found = newest(values_of(made), records)
    inclusive = not isinstance(made, windows.TimeWindows)
    bars = [Bar(w.start // 1_000, w.end // 1_000, value, inclusive) for w, value in found.items()]
    taken = {value for label in found.values() for value in label.split()}
    marks = [Mark(time, value, value not in taken) for time, value in records]
    return svg(title, marks, bars, end, step=step)


RECORDS = [(2, "a"), (7, "b"), (11, "c"), (13, "d"), (24, "e")]


def together() -> str:
    """A join: which pairs make a result."""
    topology = Topology("timeline")
    left, right = (topology.stream(name, key=serde.string(), value=serde.string()) for name in ("left", "right"))
    within = windows.join(before=seconds(2), after=seconds(5))
    left.left_join(right, lambda one, other: f"{one} {other or 'alone'}", within=within, store="s").to(
        "out", value=serde.string()
    )
    records = [
        ("left", 5, "L1"),
        ("right", 9, "R1"),
        ("left", 10, "L2"),
        ("right", 17, "R2"),
        ("left", 20, "L3"),
        ("left", 28, "L4"),
    ]
    with TopologyTestDriver(topology) as driver:
        for side, time, value in records:
            driver.input(side).pipe("k", value, timestamp=time * 1_000)
        results = driver.output("out", key=serde.string(), value=serde.string()).values()
    bars = []
    for side, time, value in records:
        if side == "left":
            joined_with = ", ".join(result for result in results if result is not None and result.startswith(value))
            bars.append(Bar(time - 2, time + 5, joined_with or "waits", True))
    marks = [Mark(time, value) for _, time, value in records]
    return svg("Left records with their windows, and what they join", marks, bars, 35, step=5)


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    late = [(2, "a"), (11, "b"), (8, "c"), (16, "d"), (9, "e")]
    return {
        "tumbling": timeline("Tumbling windows of 10 s", windows.tumbling(seconds(10)), RECORDS, 30),
        "hopping": timeline("Hopping windows of 10 s", windows.hopping(seconds(10), seconds(5)), RECORDS, 35),
        "sliding": timeline("Sliding windows of 5 s", windows.sliding(seconds(5), grace=seconds(60)), RECORDS, 35),
        "session": timeline("Sessions with a gap of 5 s", windows.session(seconds(5)), RECORDS, 30),
        "unlimited": timeline("An unlimited window", windows.unlimited(), RECORDS, 30),
        "grace": timeline(
            "Tumbling windows of 10 s with 5 s grace; records come in the order a, b, c, d, e: e is late",
            windows.tumbling(seconds(10), grace=seconds(5)), late, 25,
        ),
        "join": together(),
    }  # fmt: skip


if __name__ == "__main__":
    for name, picture in pictures().items():
        path = Path(__file__).parent / f"{name}.svg"
        path.write_text(picture, encoding="utf-8")
        print(path)
