"""The engine: a deterministic worker behind ports, without Kafka, RocksDB, threads or a clock of its own.

The life of a record: ``worker`` polls, ``processing`` hands records to tasks, ``task/record_processor`` and
``task/input_merger`` run them through the operators, ``task/error_policy`` handles failures.
The life of a commit: ``commit/coordinator``, ``commit/changelog``, ``commit/transaction``, ``commit/recovery``.
The life of a task: ``rebalance``, ``assign/assignment``, ``assign/start_checks``, ``assign/restore``, ``task/task``.
``composition`` puts a worker together.
"""

from streamstate.engine.commit.transaction import AtLeastOnce, Committer, Transaction
from streamstate.engine.composition import WorkerPorts, build_worker
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
    "WorkerPorts",
    "WorkerSettings",
    "WorkerStatus",
    "build_worker",
]
