"""What is to be done to an application, and what came of it.

Rule of this module: plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.checker import Checked
from tests.chaos.schedule import Episode

__all__ = ["Outcome", "PhaseReport", "Plan", "Restore"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        records: to feed, at least.
        users: keys, at most.
        partitions: of the topics.
        seconds: over which the faults are spread; what takes longer takes longer.
        session_s: the group's session time-out.
        transaction_s: after which the broker aborts what a dead process left open and nobody took up.
    """

    guarantee: str
    records: int
    users: int
    partitions: int
    seconds: float
    seed: int
    episodes: Sequence[Episode]
    session_s: float
    transaction_s: float


@dataclass(frozen=True, slots=True)
class Restore:
    """One store restored within an episode.

    Attributes:
        task, worker: which, and where.
        records: replayed.
        needed: committed records in the changelog from the position that the copy on the machine reflects; from the
            log's start when there is none.
        kept: whether it is the copy of a killed process; its position was read from its disk then, thus ``needed`` is
            what was committed since its last applied commit, or since what a restore had kept.
    """

    task: str
    worker: str
    records: int
    needed: int
    kept: bool


@dataclass(slots=True)
class Outcome:
    """One episode and what it cost.

    Attributes:
        at_s: since the phase began.
        downtime_s: the longest time a partition of the output had nothing.
        silence_s: the longest time all of them had nothing.
        recovered_s: from the first fault until all tasks ran and every partition brought something.
        blocked_s: of a SIGKILL, how long what it left open held up readers of committed records.
    """

    name: str
    kinds: tuple[str, ...]
    at_s: float
    downtime_s: float = 0.0
    silence_s: float = 0.0
    recovered_s: float = 0.0
    blocked_s: list[float] = field(default_factory=list)
    restores: list[Restore] = field(default_factory=list)


@dataclass(slots=True)
class PhaseReport:
    """Everything about one application.

    Attributes:
        records: fed.
        faults: done, by kind.
        processes: started.
        gave_up: of these, without a broker at their start.
        violations: in words.
    """

    guarantee: str
    records: int
    partitions: int
    seed: int
    faults: dict[str, int]
    outcomes: list[Outcome]
    checked: Checked
    committed_transactions: int
    aborted_transactions: int
    processes: int
    gave_up: int
    seconds: float
    violations: list[str]
