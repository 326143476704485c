"""Keeps a broker for all test processes of a run: ``python -m tests.shared_broker RUN NAME PROPERTIES``.

Rule of this module: it ends with the first process of the run, however that ends. That one holds a lock, for which this
one waits.
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

from streamstate.broker import EmbeddedBroker
from tests.broker_support import RUNNING, START_TIMEOUT

# Of the broker with its controller. The embedded broker has 2 s, for a quick start after a kill; nobody kills this one,
# and a machine that is busy with tests can keep it from its heartbeat for that long, which fences all that it leads.
SESSION = {"broker.session.timeout.ms": "60000"}


def main(run: Path, name: str, properties: dict[str, str]) -> None:
    """See above."""
    # Tests of all files leave their topics on it.
    with (run / RUNNING).open() as running, (run / f"{name}.alive").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        with EmbeddedBroker(properties={**SESSION, **properties}, heap_mb=768, start_timeout=START_TIMEOUT) as broker:
            draft = run / f"{name}.draft"
            draft.write_text(broker.bootstrap_servers, encoding="utf-8")
            draft.rename(run / f"{name}.address")
            fcntl.flock(running, fcntl.LOCK_SH)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
