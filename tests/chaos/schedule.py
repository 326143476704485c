"""Which faults, in which order: all from the seed.

Rule of this module: pure. An episode is one fault, or two that come upon each other; between episodes the application
recovers, so that what a fault costs can be told.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["FULL", "KINDS", "MAX_PROCESSES", "MIN_PROCESSES", "SHORT", "Episode", "Fault", "counted", "schedule"]

# What each kind does is said in ``run.py``.
KINDS = ("kill", "kill_late", "stop", "broker", "scale_out", "scale_in", "wipe", "start_in_restore")
MIN_PROCESSES, MAX_PROCESSES, FIRST_PROCESSES = 2, 4, 3
# Faults that may come upon another one.
OVERLAPPING = ("kill", "broker")

FULL: Mapping[str, int] = {
    "kill": 18, "kill_late": 4, "stop": 8, "broker": 4, "scale_out": 4, "scale_in": 8, "wipe": 4, "start_in_restore": 4,
}  # fmt: skip
SHORT: Mapping[str, int] = {
    "kill": 2, "kill_late": 1, "stop": 1, "broker": 1, "scale_out": 1, "scale_in": 1, "wipe": 1, "start_in_restore": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is done.

    Attributes:
        kind: one of ``KINDS``.
        chance: between 0 and 1, decides whom it strikes.
        delay_s: since the fault before it in the same episode.
    """

    kind: str
    chance: float
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Episode:
    """Faults without a recovery between them."""

    faults: tuple[Fault, ...]

    @property
    def name(self) -> str:
        """For people."""
        return " + ".join(fault.kind for fault in self.faults)


def schedule(seed: int, counts: Mapping[str, int], overlap: float = 0.15) -> list[Episode]:
    """A sequence in which the number of processes stays within its bounds.

    Args:
        seed: of the random numbers.
        counts: how many faults of each kind.
        overlap: how likely a fault that may come upon another one does.

    Raises:
        ValueError: in the end there would be too many or too few processes.
    """
    chance = random.Random(seed)
    left = {kind: count for kind, count in counts.items() if count}
    processes = FIRST_PROCESSES
    episodes: list[Episode] = []
    while left:
        fitting = [kind for kind in left if MIN_PROCESSES <= processes + _change(kind) <= MAX_PROCESSES]
        if not fitting:
            raise ValueError(f"with {processes} processes none of {left} can be done")
        kind = chance.choices(fitting, [left[each] for each in fitting])[0]
        faults = [Fault(kind, chance.random())]
        processes += _change(kind)
        _take(left, kind)
        upon = [each for each in OVERLAPPING if each in left and each != kind]
        if kind in ("kill", "stop", "broker", "wipe") and upon and chance.random() < overlap:
            second = chance.choice(upon)
            faults.append(Fault(second, chance.random(), round(chance.uniform(0.0, 2.0), 2)))
            _take(left, second)
        episodes.append(Episode(tuple(faults)))
    return episodes


def _change(kind: str) -> int:
    return {"scale_out": 1, "start_in_restore": 1, "scale_in": -1}.get(kind, 0)


def _take(left: dict[str, int], kind: str) -> None:
    left[kind] -= 1
    if not left[kind]:
        del left[kind]


def counted(episodes: Sequence[Episode]) -> dict[str, int]:
    """Faults by kind."""
    found = dict.fromkeys(KINDS, 0)
    for episode in episodes:
        for fault in episode.faults:
            found[fault.kind] += 1
    return found
