"""All phases on one broker: exactly once, then at least once.

Rule of this module: whatever happens, everything that was started is stopped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from streamstate_cli.demonstration.interrupts import Interrupts

from streamstate.broker import EmbeddedBroker
from tests.chaos.outcome import PhaseReport, Plan
from tests.chaos.run import Phase
from tests.chaos.schedule import schedule
from tests.chaos.view import View

__all__ = ["PROPERTIES", "Order", "perform"]

PROPERTIES = {
    # Segments roll and changelogs are compacted within the run, as they are within a day elsewhere.
    "log.segment.bytes": str(1 << 20),
    "log.cleaner.backoff.ms": "5000",
    "log.cleaner.min.cleanable.ratio": "0.3",
    # A restart takes as long as the controller keeps the dead broker's session. The embedded broker's 2 s are short for
    # a machine that this program keeps busy: a broker that gets no processor for so long is fenced while it lives.
    "broker.session.timeout.ms": "6000",
    # What a dead process left open is aborted when its time is over and not up to ten seconds later.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}
START_TIMEOUT = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Order:
    """One phase.

    Attributes:
        faults: how many of each kind.
    """

    guarantee: str
    records: int
    seconds: float
    seed: int
    faults: Mapping[str, int]
    partitions: int = 6
    users: int = 200_000
    session_s: float = 4.0
    transaction_s: float = 10.0


def perform(orders: Sequence[Order], console: Console, keep: Path | None = None) -> list[PhaseReport]:
    """Run them one after the other.

    Args:
        orders: the phases.
        console: shows progress.
        keep: a directory for state and logs, which stays; None: a temporary one.

    Raises:
        Interrupted: by Ctrl-C, SIGTERM or SIGHUP, after everything was stopped.
    """
    interrupts = Interrupts()
    reports: list[PhaseReport] = []
    with interrupts, ExitStack() as stack:
        try:
            if keep is None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamstate-chaos-")))
            else:
                directory = keep
            console.print("starting Apache Kafka", highlight=False)
            broker = EmbeddedBroker(
                data_dir=directory / "kafka",
                heap_mb=1024,
                properties=PROPERTIES,
                start_timeout=START_TIMEOUT,
            )
            stack.callback(broker.stop)
            broker.start()
            for order in orders:
                reports.append(_phase(order, broker, directory / order.guarantee, console, interrupts))
        finally:
            # What follows must not be cut short.
            interrupts.hold()
    return reports


def _phase(
    order: Order, broker: EmbeddedBroker, directory: Path, console: Console, interrupts: Interrupts
) -> PhaseReport:
    episodes = schedule(order.seed, order.faults)
    plan = Plan(
        order.guarantee, order.records, order.users, order.partitions, order.seconds, order.seed, episodes,
        order.session_s, order.transaction_s,
    )  # fmt: skip
    phase: Phase | None = None

    def numbers() -> str:
        if phase is None:
            return "starting"
        done = sum(phase.done.values())
        seen = 0 if phase.watch is None else phase.watch.seen
        return (
            f"{order.guarantee}: fed {phase.feeder.fed:,} of {order.records:,}, out {seen:,}, faults {done} of "
            f"{sum(order.faults.values())}, {len(phase.fleet.live)} processes, violations {len(phase.violations)}: "
            f"{phase.doing}"
        )

    with View(console, numbers) as view:
        view.say(f"{order.guarantee}: {order.records:,} records, {len(episodes)} episodes, seed {order.seed}")
        phase = Phase(plan, broker, directory, view.say)
        try:
            return phase.run()
        finally:
            with interrupts.held():
                phase.close()
