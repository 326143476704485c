"""What happens in a run when nothing goes wrong: drawn from the seed.

Rule of this module: the plan does not know the faults, so that leaving one out changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from streamstate.engine.settings import WorkerSettings
from streamstate.testing.memory_broker.consumer import Protocol
from streamstate.testing.simulation.library.catalogue import WORKLOADS, find_workload
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload

__all__ = ["SESSION_TIMEOUT_MS", "Plan", "Shift", "make_plan"]

SESSION_TIMEOUT_MS: Final = 6_000


@dataclass(frozen=True, slots=True)
class Shift:
    """A worker starts, or leaves in order, at a virtual time."""

    at_ms: int
    worker: str
    starts: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything but the faults.

    Attributes:
        horizon_ms: virtual time after which nothing new happens and the run has to come to rest.
        step_ms: virtual time between two turns of a worker.
        inputs: what is fed.
        due_ms: when each of the inputs' records is.
        shifts: in order of time.
    """

    seed: int
    workload: Workload
    protocol: Protocol
    settings: WorkerSettings
    horizon_ms: int
    step_ms: int
    inputs: Inputs
    due_ms: Sequence[int]
    shifts: Sequence[Shift]


def make_plan(seed: int, workload: Workload | None = None) -> Plan:
    """The plan of a seed.

    Args:
        seed: of the run.
        workload: None: the seed chooses one of the built-in ones.
    """
    random = Random(f"plan of {seed}")
    built_in = random.choice(WORKLOADS)
    if workload is None:
        workload = find_workload(built_in)
    partitions = random.choice((1, 2, 2, 3))
    horizon_ms = random.choice((2_000, 4_000, 8_000))
    # As the app has it: only the range assignor brings partitions of several topics together, the broker's too.
    protocols: tuple[Protocol, ...] = ("eager", "broker") if workload.co_partitioned else ("cooperative", "broker")
    protocol = random.choice(protocols)
    settings = _settings(random, workload)
    records = tuple(workload.inputs(random, partitions))
    return Plan(
        seed,
        workload,
        protocol,
        settings,
        horizon_ms,
        random.choice((20, 50, 100)),
        Inputs(records, partitions),
        _feeding(random, records, horizon_ms, workload.at_once),
        _shifts(random, horizon_ms),
    )


def _settings(random: Random, workload: Workload) -> WorkerSettings:
    drawn: dict[str, Any] = {
        "commit_interval_ms": random.choice((20, 100, 400, 1_200)),
        "commit_timeout_ms": random.choice((1_000, 5_000, 20_000)),
        "revoke_timeout_ms": random.choice((1_000, 5_000)),
        "max_poll_records": random.choice((1, 3, 10, 500)),
        "buffer_records": random.choice((2, 10, 1_000)),
        "max_task_idle_ms": random.choice((0, 200)),
        "fetch_wait_ms": random.choice((100, 1_000)),
        "staging_bytes": random.choice((1_000, 64 << 20)),
        "cache_bytes": random.choice((1_000, 64 << 20)),
        "restore_batch": random.choice((1, 5, 1_000)),
        "purge_interval_ms": random.choice((200, 30_000)),
    }
    return WorkerSettings(workload.graph.name, **{**drawn, **workload.settings})


def _feeding(random: Random, records: Sequence[InputRecord], horizon_ms: int, at_once: bool) -> list[int]:
    if at_once:
        return [0] * len(records)
    # In bursts, some of it before anybody is there.
    moments = sorted(
        random.randrange(-horizon_ms // 8, horizon_ms * 7 // 8) for _ in range(random.choice((1, 4, 12, 40)))
    )
    return sorted(max(0, random.choice(moments)) for _ in records)


def _shifts(random: Random, horizon_ms: int) -> list[Shift]:
    shifts = []
    for number in range(random.choice((1, 2, 2, 3, 4))):
        name = f"w{number + 1}"
        at_ms = 0 if number == 0 else random.choice((0, random.randrange(horizon_ms)))
        shifts.append(Shift(at_ms, name, starts=True))
        # It may leave, and come back.
        for starts in (False, True):
            if random.random() < 0.4 or (starts and number == 0):
                at_ms += random.randrange(1, horizon_ms // 2)
                shifts.append(Shift(at_ms, name, starts))
            else:
                break
    return sorted((shift for shift in shifts if shift.at_ms < horizon_ms), key=lambda shift: shift.at_ms)
