"""What the demonstration found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from streamstate_cli.demonstration.proof import GROUPINGS, Checked
from streamstate_cli.demonstration.view import WorkerRow, results

__all__ = ["Recovery", "Report"]

# A flight is read from the source and from two repartition topics, and written to these two and to two outputs.
READS_PER_FLIGHT, WRITES_PER_FLIGHT = 3, 4


@dataclass(frozen=True, slots=True)
class Recovery:
    """The kill and what came of it.

    Attributes:
        killed, killed_pid: the worker that got SIGKILL, and its process.
        kept_state: whether its local state was left to its replacement.
        tasks: it ran.
        at_flights: flights that were processed at that moment.
        replacement, replacement_pid: the worker that took its place.
        running_after_s: from the kill until the replacement processed.
        restored: changelog records that the workers replayed after the kill.
        changelog_records: in the changelogs: what a restore from nothing would have replayed, about.
    """

    killed: str
    killed_pid: int
    kept_state: bool
    tasks: int
    at_flights: int
    replacement: str
    replacement_pid: int
    running_after_s: float
    restored: int
    changelog_records: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything.

    Attributes:
        flights: in the source file.
        checked: what was found in each output topic.
        workers: at their ends.
        recovery: the kill.
        processing_s: from the first flight to the last one committed.
        total_s: all of it, the broker's start and the proof included.
    """

    flights: int
    checked: Sequence[Checked]
    workers: Sequence[WorkerRow]
    recovery: Recovery
    processing_s: float
    total_s: float

    @property
    def ok(self) -> bool:
        """Whether every flight was counted exactly once."""
        return not any(one.problems for one in self.checked)

    @property
    def outputs(self) -> int:
        """Records checked."""
        return sum(one.outputs for one in self.checked)

    @property
    def verdict(self) -> str:
        """One line."""
        if self.ok:
            return f"Every one of {self.flights:,} flights was counted exactly once ({self.outputs:,} outputs checked)."
        problems = sum(one.problems for one in self.checked)
        return f"NOT exactly once: {problems:,} of {self.outputs:,} outputs or keys are wrong."

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "flights": self.flights,
            "outputs_checked": self.outputs,
            "problems": [text for one in self.checked for text in one.shown],
            "problem_count": sum(one.problems for one in self.checked),
            "recovery": asdict(self.recovery),
            "workers": [asdict(worker) for worker in self.workers],
            "processing_s": round(self.processing_s, 3),
            "total_s": round(self.total_s, 3),
            "flights_per_s": round(self.flights / self.processing_s),
            "results": {GROUPINGS[one.topic]: one.last for one in self.checked},
        }

    def show(self, console: Console, airlines: Mapping[str, str]) -> None:
        """Print it."""
        names: dict[str, Mapping[str, str]] = {"carrier": airlines}
        for one in self.checked:
            field = GROUPINGS[one.topic]
            console.print(results(f"By {field}", one.last, names.get(field, {})))
            console.print()
        for text in self._numbers():
            console.print(text, highlight=False, soft_wrap=True)
        for one in self.checked:
            for text in one.shown:
                console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(self.verdict, style="bold green" if self.ok else "bold red", highlight=False, soft_wrap=True)

    def _numbers(self) -> list[str]:
        per_s = self.flights / self.processing_s
        recovery = self.recovery
        if recovery.kept_state:
            source = "what the killed process had committed was still in its local state"
        else:
            source = "the killed process's state came back from Kafka alone"
        return [
            f"{self.flights:,} flights in {self.processing_s:.1f} s, a killed process included: {per_s:,.0f} "
            f"flights/s; {per_s * READS_PER_FLIGHT:,.0f} records/s read, {per_s * WRITES_PER_FLIGHT:,.0f} written.",
            f"{recovery.killed.capitalize()} (pid {recovery.killed_pid}) was killed with {recovery.tasks} tasks; "
            f"{recovery.replacement} (pid {recovery.replacement_pid}) ran {recovery.running_after_s:.1f} s later.",
            f"{recovery.restored:,} records were restored, of {recovery.changelog_records:,} in the changelogs at the "
            f"end: {source}.",
            f"All in {self.total_s:.0f} s, starting Kafka and the proof included.",
        ]
