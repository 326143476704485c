"""Many seeds, on one core or several.

Rule of this module: a seed's run does not depend on which other seeds run, where, or in what order.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from streamstate.testing.simulation.faults import Fault, draw_faults
from streamstate.testing.simulation.plan import make_plan
from streamstate.testing.simulation.run import Result, simulate
from streamstate.testing.simulation.shrink import shrink
from streamstate.testing.simulation.workloads import Workload

__all__ = ["Campaign", "Failure", "quiet", "run_seeds"]

# Seeds that one process takes at a time.
CHUNK = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that was found wrong, and what suffices for it.

    Attributes:
        result: with all the faults of the seed.
        faults: those that suffice; none: it fails without any.
        shrunk: the run with just these.
    """

    result: Result
    faults: tuple[Fault, ...]
    shrunk: Result


@dataclass(frozen=True)
class Campaign:
    """What is run, for any seed.

    Attributes:
        workload: None: each seed chooses one of the built-in ones.
        kinds: of faults.
    """

    workload: Workload | None
    kinds: Sequence[str]

    def faults(self, seed: int) -> tuple[Fault, ...]:
        """The faults of a seed."""
        return draw_faults(seed, make_plan(seed, self.workload).horizon_ms, self.kinds)

    def run(
        self, seed: int, faults: Sequence[Fault] | None = None, trace: Callable[[str], None] | None = None
    ) -> Result:
        """One run.

        Args:
            seed: of the run.
            faults: None: those of the seed.
            trace: is told every port call and every fault.
        """
        chosen = self.faults(seed) if faults is None else faults
        with quiet():
            return simulate(make_plan(seed, self.workload), chosen, trace)

    def explain(self, result: Result) -> Failure:
        """Run a seed that failed again and again, with ever fewer faults."""
        seed = result.seed
        every = self.faults(seed)
        fired = tuple(fault for fault, _ in result.fired)
        start = fired if not self.run(seed, fired).ok else every
        faults = shrink(start, lambda some: not self.run(seed, some).ok)
        return Failure(result, faults, self.run(seed, faults))


def run_seeds(
    make_campaign: Callable[[], Campaign], seeds: Iterable[int], jobs: int, stop: Callable[[], bool] = lambda: False
) -> Iterator[Result]:
    """The results of many seeds, in the order of the seeds.

    Args:
        make_campaign: called once in each process; must be importable there.
        seeds: may be without end.
        jobs: processes; with one, everything runs in this process.
        stop: asked before more seeds are taken up.
    """
    numbers = iter(seeds)
    if jobs == 1:
        campaign = make_campaign()
        for seed in numbers:
            if stop():
                return
            yield campaign.run(seed)
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _prepare, (make_campaign,))
    try:
        under_way: list[Future[list[Result]]] = []
        while True:
            while len(under_way) < 3 * jobs and not stop() and (chunk := list(islice(numbers, CHUNK))):
                under_way.append(pool.submit(_run_chunk, chunk))
            if not under_way:
                return
            yield from under_way.pop(0).result()
    finally:
        pool.shutdown(cancel_futures=True)


_prepared: list[Campaign] = []


def _prepare(make_campaign: Callable[[], Campaign]) -> None:
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _prepared[:] = [make_campaign()]


def _end_with_parent() -> None:
    """A pool's process waits for work for ever, also of a parent that was killed."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run_chunk(seeds: Sequence[int]) -> list[Result]:
    return [_prepared[0].run(seed) for seed in seeds]


@contextmanager
def quiet() -> Iterator[None]:
    """Thousands of faults have nothing to say in the log."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
