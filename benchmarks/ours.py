"""streamstate as a contender: ``python -m benchmarks.ours JOB``.

Rule of this module: the public API as its documentation says, with settings at their defaults but for the commit
interval. Every record's value is decoded as JSON.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from benchmarks.expected import JOIN_WINDOW_MS
from benchmarks.job import Job, received, say, when_told_to_stop
from streamstate import Topology, aggregates, serde, windows
from streamstate.app import Application, Settings

__all__ = ["TOPOLOGIES", "missing", "topology"]

Event = dict[str, Any]

# How often it is looked whether the first record was there, and whether all is restored. Each look asks the client how
# far behind every partition is: every 20 ms, that would be some per cent of the whole.
_STATUS = timedelta(milliseconds=100)
_STATUS_OF_RESTORE = timedelta(milliseconds=20)
_MINUTE = timedelta(minutes=1)
_GRACE = timedelta(seconds=30)


def _mapped(job: Job, topology: Topology[Any, Any]) -> None:
    (
        topology.stream(job.inputs["events"], key=serde.string(), value=serde.json())
        .map_values(lambda event: {"id": event["id"], "twice": event["amount"] * 2})
        .to(job.output, value=serde.json())
    )


def _counted(job: Job, topology: Topology[Any, Any]) -> None:
    (
        topology.stream(job.inputs["events"], key=serde.string(), value=serde.json())
        .group_by_key()
        .count(store="counts")
        .to_stream(emit="commit" if job.work == "count-commit" else "update")
        .to(job.output, value=serde.json())
    )


def _grouped(job: Job, topology: Topology[Any, Any]) -> None:
    (
        topology.stream(job.inputs["events"], key=serde.string(), value=serde.json())
        .group_by(lambda key, event: event["group"], key=serde.string())
        .count(store="counts")
        .to_stream()
        .to(job.output, value=serde.json())
    )


def _means(job: Job, topology: Topology[Any, Any]) -> None:
    (
        topology.stream(job.inputs["events"], key=serde.string(), value=serde.json())
        .group_by_key()
        .windowed_by(windows.tumbling(_MINUTE, grace=_GRACE))
        .aggregate(mean=aggregates.mean("amount"), store="means")
        .to_stream()
        .map(lambda window, row: (window.key, {"start": window.start, "mean": row["mean"]}))
        .to(job.output, key=serde.string(), value=serde.json())
    )


def _enriched(job: Job, topology: Topology[Any, Any]) -> None:
    customers = topology.table(job.inputs["table"], key=serde.string(), value=serde.json())
    (
        topology.stream(job.inputs["events"], key=serde.string(), value=serde.json())
        .join(customers, lambda event, row: {"id": event["id"], "amount": event["amount"], "name": row["name"]})
        .to(job.output, value=serde.json())
    )


def _pairs(job: Job, topology: Topology[Any, Any]) -> None:
    left = topology.stream(job.inputs["left"], key=serde.string(), value=serde.json())
    right = topology.stream(job.inputs["right"], key=serde.string(), value=serde.json())
    (
        left.join(
            right,
            lambda one, other: {"left": one["id"], "right": other["id"]},
            within=windows.join(timedelta(milliseconds=JOIN_WINDOW_MS), grace=_GRACE),
            name="pairs",
        ).to(job.output, value=serde.json())
    )


def _restored(job: Job, topology: Topology[Any, Any]) -> None:
    (
        topology.stream(job.inputs["events"], key=serde.string(), value=serde.bytes_())
        .group_by_key()
        .reduce(lambda first, newer: first, store="entries")
        .to_stream()
        .to(job.output, value=serde.bytes_())
    )


TOPOLOGIES: Mapping[str, Callable[[Job, Topology], None]] = {
    "map": _mapped,
    "count-update": _counted,
    "count-commit": _counted,
    "repartition": _grouped,
    "tumbling-mean": _means,
    "table-join": _enriched,
    "stream-join": _pairs,
    "restore": _restored,
}


def topology(job: Job) -> Topology:
    """What this job computes."""
    made = Topology("benchmark")
    TOPOLOGIES[job.work](job, made)
    return made


def missing(work: str) -> str | None:
    """Why streamstate cannot do this yet; None when it can."""
    return None if work in TOPOLOGIES else f"streamstate has no operators for {work} yet"


class _Restoring(logging.Handler):
    """Tells when the engine begins to restore: it logs that before it connects."""

    def emit(self, record: logging.LogRecord) -> None:
        if "restoring store" in record.msg:
            say("restore-start")


def main() -> None:
    """Run until told to stop."""
    job = received()
    if job.work == "restore":
        restoring = logging.getLogger("streamstate.restore")
        restoring.setLevel(logging.INFO)
        restoring.addHandler(_Restoring())
    told: set[str] = set()
    newest: list[Any] = []

    def watch(status: Any) -> None:
        newest[:] = [status]
        if status.processed and "first" not in told:
            told.add("first")
            say("first")
        if job.work == "restore" and "restored" not in told:
            progress = status.restore
            if progress.records and not progress.stores:
                told.add("restored")
                say(f"restored {progress.records}")

    settings = Settings(
        bootstrap_servers=job.servers,
        application_id=job.application_id,
        state_dir=job.state,
        commit_interval=timedelta(milliseconds=job.commit_ms),
    )
    often = _STATUS_OF_RESTORE if job.work == "restore" else _STATUS
    application = Application(topology(job), settings, watch, often)
    when_told_to_stop(application.stop)
    application.run()
    for status in newest:
        # For whoever has to find out why an output is wrong.
        print(f"left out {status.dropped}, failed {status.failed}, rolled back {status.rollbacks}", file=sys.stderr)


if __name__ == "__main__":
    main()
