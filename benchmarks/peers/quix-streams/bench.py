"""Quix Streams as a contender: ``python bench.py JOB``, run by the interpreter of its own environment.

Rule of this module: it imports nothing of this repository. The job and the lines on standard output are described in
``benchmarks/job.py``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.models import JSONDeserializer

MINUTE = timedelta(minutes=1)
GRACE = timedelta(seconds=30)
JOIN = timedelta(seconds=1)


class FirstSaid(JSONDeserializer):
    """JSON; the first record that is read is reported."""

    begun = False

    def __call__(self, value: bytes, ctx: Any) -> Any:
        if not FirstSaid.begun:
            FirstSaid.begun = True
            print("first", flush=True)
        return super().__call__(value, ctx)


def count(value: Any, state: Any) -> int:
    """How many values this key has had."""
    number: int = state.get("count", 0) + 1
    state.set("count", number)
    return number


def mapped(events: Any) -> Any:
    return events.apply(lambda event: {"id": event["id"], "twice": event["amount"] * 2})


def counted(events: Any) -> Any:
    return events.apply(count, stateful=True)


def grouped(events: Any) -> Any:
    by_group = events.group_by(
        lambda event: event["group"], name="by-group", key_serializer="string", key_deserializer="string"
    )
    return by_group.apply(count, stateful=True)


def means(events: Any) -> Any:
    amounts = events.apply(lambda event: event["amount"])
    windows = amounts.tumbling_window(MINUTE, grace_ms=GRACE).mean().current()
    return windows.apply(lambda window: {"start": window["start"], "mean": window["value"]})


def enriched(events: Any, table: Any) -> Any:
    def merge(event: Any, row: Any) -> Any:
        return {"id": event["id"], "amount": event["amount"], "name": row["name"]}

    return events.join_asof(table, how="inner", on_merge=merge)


def pairs(left: Any, right: Any) -> Any:
    def merge(one: Any, other: Any) -> Any:
        return {"left": one["id"], "right": other["id"]}

    return left.join_interval(right, how="inner", on_merge=merge, grace_ms=GRACE, backward_ms=JOIN, forward_ms=JOIN)


# What is computed, and the roles of the topics that it reads.
WORKS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "map": (mapped, ("events",)),
    "count-update": (counted, ("events",)),
    # It has no emission at commit: every update is sent.
    "count-commit": (counted, ("events",)),
    "repartition": (grouped, ("events",)),
    "tumbling-mean": (means, ("events",)),
    "table-join": (enriched, ("events", "table")),
    "stream-join": (pairs, ("left", "right")),
}


def main() -> None:
    """Run until standard input ends."""
    job = json.loads(sys.argv[1])
    application = Application(
        broker_address=job["servers"],
        consumer_group=job["application_id"],
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        commit_interval=job["commit_ms"] / 1000,
        state_dir=job["state_dir"],
        consumer_poll_timeout=0.05,
        loglevel="WARNING",
    )
    work, roles = WORKS[job["work"]]
    frames = [
        application.dataframe(
            application.topic(job["inputs"][role], key_deserializer="string", value_deserializer=FirstSaid())
        )
        for role in roles
    ]
    output = application.topic(job["output"], key_serializer="string", value_serializer="json")
    work(*frames).to_topic(output)

    def wait() -> None:
        while os.read(0, 1024):
            pass
        application.stop()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
    application.run()


if __name__ == "__main__":
    main()
