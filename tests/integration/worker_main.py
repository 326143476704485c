"""Runs one process of an application, for tests: an order as JSON in, one JSON object per line out.

The order: ``topology`` (a function of ``topologies.py``) with its ``arguments``, ``settings`` (fields of
``streamstate.app.Settings``; durations in seconds) and ``hooks``:

- ``die_before_apply``: a path; once it exists, the process kills itself in the next commit, after Kafka has taken it
  and before the stores have, and says before how many changelog records that commit has.
- ``restore_stops_at``: after this many restored records, taken one by one, the process says so and restores no more.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from streamstate import app
from streamstate.engine.assign.restore import Restorer
from streamstate.engine.metrics import WorkerStatus
from streamstate.engine.task.task import Task
from streamstate.errors import StreamStateError
from tests.integration import topologies

STATUS_INTERVAL = timedelta(milliseconds=100)
DURATIONS = {"commit_interval", "transaction_timeout", "broker_timeout", "max_task_idle"}


def say(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def on_status(status: WorkerStatus) -> None:
    facts = dataclasses.asdict(status)
    restore = facts.pop("restore")
    say("status", **facts, restored=restore["records"], restoring=restore["stores"], remaining=restore["remaining"])


def die_before_apply(armed: Path) -> None:
    sealed: list[int] = []
    seal, committed = Task.seal, Task.committed

    def count(self: Task) -> dict[str, dict[bytes, bytes | None]]:
        writes = seal(self)
        sealed.append(sum(len(entries) for entries in writes.values()))
        return writes

    def apply(self: Task, *arguments: Any) -> None:
        if armed.exists() and sum(sealed):
            say("dying", changelog_records=sum(sealed))
            os.kill(os.getpid(), signal.SIGKILL)
        committed(self, *arguments)
        sealed.clear()

    Task.seal = count  # type: ignore[method-assign]
    Task.committed = apply  # type: ignore[method-assign]


def restore_stops_at(limit: int) -> None:
    poll = Restorer.poll

    def poll_until(self: Restorer, timeout_ms: int) -> list[Task]:
        self._batch = 1
        if self.records < limit:
            return poll(self, timeout_ms)
        say("restoring", records=self.records)
        signal.pause()
        return []

    Restorer.poll = poll_until  # type: ignore[method-assign]


def main() -> int:
    order = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if "die_before_apply" in order["hooks"]:
        die_before_apply(Path(order["hooks"]["die_before_apply"]))
    if "restore_stops_at" in order["hooks"]:
        restore_stops_at(order["hooks"]["restore_stops_at"])
    settings = {
        name: timedelta(seconds=value) if name in DURATIONS else Path(value) if name == "state_dir" else value
        for name, value in order["settings"].items()
    }
    try:
        topology = getattr(topologies, order["topology"])(**order["arguments"])
        application = app.Application(topology, app.Settings(**settings), on_status, STATUS_INTERVAL)
        signal.signal(signal.SIGTERM, lambda *_: application.stop())
        application.run()
    except StreamStateError as error:
        say("error", type=type(error).__name__, message=str(error), exit_code=error.exit_code)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
