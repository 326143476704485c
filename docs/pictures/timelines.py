"""The timelines of docs/windows.md. What is in them is not drawn by hand: each is what a topology made of its records,
by the TopologyTestDriver. ``python -m docs.pictures.draw`` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from xml.sax.saxutils import escape

from streamstate import Table, Topology, Windowed, serde, windows
from streamstate.testing.driver.driver import TopologyTestDriver

WIDTH, LEFT, RIGHT = 760, 24, 24
TITLE, ROW, BAR = 34, 30, 22
INK, SOFT, FILL, GRACE, LATE, OTHER = "#1f2937", "#6b7280", "#bfdbfe", "#eff6ff", "#fca5a5", "#ffffff"
# About the width of a letter: a bar that is too narrow for its label has it beside it.
LETTER = 7
# Right after a record is a millisecond later: so far to the right that it can be seen.
RIGHT_AFTER = 6


@dataclass(frozen=True, slots=True)
class Mark:
    """A record: its time, what stands at it, and the colour of its point."""

    time: int
    label: str
    fill: str = INK


@dataclass(frozen=True, slots=True)
class Bar:
    """A window: from, to and until when it takes records, in milliseconds; what stands in it; ``closed`` says that its
    end is part of it."""

    start: int
    end: int
    label: str
    closed: bool = False
    grace: int = 0


def svg(title: str, marks: Sequence[Mark], bars: Sequence[Bar], end: int, *, step: int = 5, unit: str = "s") -> str:
    """One picture.

    Args:
        title: stands above it.
        marks: on the axis.
        bars: above it, each in the lowest row that is free.
        end: of the axis in seconds; it starts at 0.
        step: between its labels.
        unit: of the labels.
    """

    def x(time_ms: int) -> float:
        after = RIGHT_AFTER if time_ms % 1_000 and time_ms < end * 1_000 else 0
        return round(LEFT + (WIDTH - LEFT - RIGHT) * min(time_ms // 1_000, end) / end + after, 1)

    placed = rows_of(bars)
    axis = TITLE + ROW * (1 + max((row for row, _ in placed), default=0)) + 26
    height = axis + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}" role="img" aria-label="{escape(title)}">',
        f"  <title>{escape(title)}</title>",
        f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'  <text x="{LEFT}" y="18" fill="{SOFT}">{escape(title)}</text>',
    ]
    for row, bar in placed:
        out += drawn(bar, axis - 26 - ROW * (row + 1) + (ROW - BAR), x)
    out.append(f'  <line x1="{LEFT}" y1="{axis}" x2="{WIDTH - RIGHT}" y2="{axis}" stroke="{INK}"/>')
    for time in range(0, end + 1, step):
        at = x(time * 1_000)
        out.append(f'  <line x1="{at}" y1="{axis - 4}" x2="{at}" y2="{axis + 4}" stroke="{INK}"/>')
        out.append(f'  <text x="{at}" y="{axis + 26}" text-anchor="middle" fill="{SOFT}">{time} {unit}</text>')
    for mark in marks:
        at = x(mark.time * 1_000)
        out.append(f'  <circle cx="{at}" cy="{axis}" r="5" fill="{mark.fill}" stroke="{INK}"/>')
        out.append(f'  <text x="{at}" y="{axis - 10}" text-anchor="middle">{escape(mark.label)}</text>')
    return "\n".join([*out, "</svg>", ""])


def rows_of(bars: Sequence[Bar]) -> list[tuple[int, Bar]]:
    """Each bar with the lowest row that is free where it is."""
    rows: list[int] = []
    placed: list[tuple[int, Bar]] = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.end)):
        row = next((index for index, until in enumerate(rows) if until <= bar.start), len(rows))
        rows[row : row + 1] = [bar.end + bar.grace + 1_000 * bar.closed]
        placed.append((row, bar))
    return placed


def drawn(bar: Bar, top: int, x: Callable[[int], float]) -> list[str]:
    """The elements of one bar."""
    left, right = x(bar.start), x(bar.end)
    if right - left < 8:
        left, right = left - 4, left + 4
    shape = f'y="{top}" height="{BAR}" rx="4"'
    out = []
    if bar.grace:
        until = x(bar.end + bar.grace)
        out.append(
            f'  <rect x="{left}" width="{round(until - left, 1)}" {shape} fill="{GRACE}" stroke="{SOFT}" '
            f'stroke-dasharray="3 3"/>'
        )
        middle = round((right + until) / 2, 1)
        out.append(f'  <text x="{middle}" y="{top + 15}" text-anchor="middle" fill="{SOFT}">grace</text>')
    out.append(f'  <rect x="{left}" width="{round(right - left, 1)}" {shape} fill="{FILL}" stroke="{INK}"/>')
    if right - left < LETTER * len(bar.label) + 4:
        out.append(f'  <text x="{right + 4}" y="{top + 15}">{escape(bar.label)}</text>')
    else:
        middle = round((left + right) / 2, 1)
        out.append(f'  <text x="{middle}" y="{top + 15}" text-anchor="middle">{escape(bar.label)}</text>')
    return out


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


def timeline(title: str, made: Any, records: Sequence[tuple[int, str]], end: int, grace: int = 0) -> str:
    """Records of one key and the windows that they end up in; ``grace`` in seconds, where it is to be seen."""
    found = newest(values_of(made), records)
    inclusive = not isinstance(made, windows.TimeWindows)
    bars = [Bar(w.start, w.end, value, inclusive, grace * 1_000) for w, value in found.items()]
    taken = {value for label in found.values() for value in label.split()}
    marks = [Mark(time, value, INK if value in taken else LATE) for time, value in records]
    return svg(title, marks, bars, end)


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
            bars.append(Bar(time * 1_000 - 2_000, time * 1_000 + 5_000, joined_with or "waits", True))
    marks = [Mark(time, value, INK if side == "left" else OTHER) for side, time, value in records]
    title = "Left records (black) with their windows, 2 s before to 5 s after; right records (white)"
    return svg(title, marks, bars, 35)


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    late = [(2, "a"), (11, "b"), (8, "c"), (16, "d"), (9, "e")]
    return {
        "tumbling": timeline("Tumbling windows of 10 s", windows.tumbling(seconds(10)), RECORDS, 30),
        "hopping": timeline("Hopping windows of 10 s every 5 s", windows.hopping(seconds(10), seconds(5)), RECORDS, 35),
        "sliding": timeline("Sliding windows of 5 s", windows.sliding(seconds(5), grace=seconds(60)), RECORDS, 35),
        "session": timeline("Sessions with a gap of 5 s", windows.session(seconds(5)), RECORDS, 30),
        "unlimited": timeline("An unlimited window", windows.unlimited(), RECORDS, 30),
        "grace": timeline(
            "Tumbling windows of 10 s with 5 s grace. Records come in the order a, b, c, d, e: e (red) is late",
            windows.tumbling(seconds(10), grace=seconds(5)), late, 25, grace=5,
        ),
        "join": together(),
    }  # fmt: skip
