"""The engine: a deterministic worker behind ports; no Kafka, no RocksDB, no threads, no clock of its own."""

from streamstate.engine.commit.transaction import AtLeastOnce, Committer, Transaction
from streamstate.engine.metrics import WorkerStatus
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.task import Phase, Task, TaskId
from streamstate.engine.worker import Worker

__all__ = [
    "AtLeastOnce",
    "Committer",
    "Phase",
    "Task",
    "TaskId",
    "Transaction",
    "Worker",
    "WorkerSettings",
    "WorkerStatus",
]
