"""What the demonstration looks like: one picture that is redrawn on a terminal, lines elsewhere.

Rule of this module: it draws what it is given and knows no process and no broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = ["Snapshot", "View", "WorkerRow", "draw", "line", "results"]

LINE_EVERY_S = 2.0
EVENTS_SHOWN = 8
BAR_WIDTH = 24
WIDE = 92
STYLES = {"running": "green", "restoring": "yellow", "starting": "yellow", "killed": "red", "failed": "bold red"}


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker at one moment."""

    number: int
    pid: int
    state: str
    records_in: int
    records_out: int
    commits: int
    running: int
    restoring: int
    restored: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment.

    Attributes:
        total: flights to process.
        fed: flights produced.
        processed: flights committed as processed.
        lag: records behind, in the source and the repartition topics.
    """

    elapsed_s: float
    total: int
    fed: int
    processed: int
    lag: int
    workers: Sequence[WorkerRow]


def draw(snapshot: Snapshot, events: Sequence[str], width: int = WIDE) -> RenderableType:
    """The picture.

    Args:
        snapshot: what is shown.
        events: what happened, the newest last.
        width: of the terminal; it fits into 80 columns.
    """
    gap = 2 if width >= WIDE else 1
    bars = Table.grid(padding=(0, gap))
    for justify in ("left", "left", "right", "left"):
        bars.add_column(justify=justify, no_wrap=True)
    for name, done, note in (
        ("Flights fed", snapshot.fed, f"{snapshot.elapsed_s:.0f} s"),
        ("Flights processed", snapshot.processed, f"lag {snapshot.lag:,}"),
    ):
        bar = ProgressBar(total=max(1, snapshot.total), completed=done, width=BAR_WIDTH)
        bars.add_row(name, bar, f"{done:,} of {snapshot.total:,}", Text(note, style="dim"))
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for heading in ("\nWorker", "\nProcess", "\nState"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Records\nin", "\nout", "\nCommits", "Tasks\nrunning", "\nrestoring", "Records\nrestored"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in snapshot.workers:
        numbers = (row.records_in, row.records_out, row.commits, row.running, row.restoring, row.restored)
        table.add_row(
            str(row.number),
            str(row.pid),
            Text(row.state, style=STYLES.get(row.state, "")),
            *(f"{number:,}" for number in numbers),
            style="dim" if row.state in ("killed", "stopped") else None,
        )
    return Group(bars, Text(), table, Text(), *(Text(event) for event in events[-EVENTS_SHOWN:]))


def line(snapshot: Snapshot) -> str:
    """The same in one line."""
    workers = "; ".join(_in_words(row) for row in snapshot.workers)
    return (
        f"{snapshot.elapsed_s:4.0f} s  fed {snapshot.fed:,}  processed {snapshot.processed:,} of {snapshot.total:,}  "
        f"lag {snapshot.lag:,}  {workers}"
    )


def _in_words(row: WorkerRow) -> str:
    if not row.running and not row.restoring:
        return f"worker {row.number} {row.state}"
    restoring = f" + {row.restoring} restoring" if row.restoring else ""
    return f"worker {row.number} {row.state}, {row.running} tasks{restoring}"


def results(title: str, rows: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> Table:
    """The last output per key, most flights first.

    Args:
        title: of the first column.
        rows: last value by key.
        names: what keys stand for, for those that have a name.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(title, no_wrap=True)
    for heading in ("Flights", "Mean delay (min)", "Longest (min)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for key, value in sorted(rows.items(), key=lambda item: -item[1]["flights"]):
        mean, longest = value.get("mean_delay"), value.get("max_delay")
        table.add_row(
            f"{key} {names[key]}" if key in names else key,
            f"{value['flights']:,}",
            "-" if mean is None else f"{mean:.1f}",
            "-" if longest is None else f"{longest:,}",
        )
    return table


class View:
    """Shows snapshots and events as they come. The picture on a terminal is there within its context.

    Args:
        console: where.
        clock: seconds, monotonic.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._events: list[str] = []
        self._snapshot: Snapshot | None = None
        self._next_line = clock()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def event(self, elapsed_s: float, text: str) -> None:
        """Something happened."""
        text = f"{elapsed_s:4.0f} s  {text}"
        if self._live is None:
            self._print(text)
            return
        self._events.append(text)
        if self._snapshot is not None:
            self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """This is how it stands."""
        self._snapshot = snapshot
        if self._live is not None:
            self._live.update(draw(snapshot, self._events, self.console.width), refresh=True)
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + LINE_EVERY_S
            self._print(line(snapshot))

    def _print(self, text: str) -> None:
        # Whole lines whatever the width: they are for files and pipes. No colours, no markup.
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)
        self.console.file.flush()
