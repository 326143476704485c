"""The runtime of each operator: closures compiled once per task, no IO but the store interface."""

from streamstate.operators.aggregate import CommitEmitter
from streamstate.operators.compilation import CompiledTask, Rebuild, SourceEntry, SourceLog
from streamstate.operators.compile import compile_task
from streamstate.operators.context import (
    NEVER_MS,
    NO_LIMIT_MS,
    Headers,
    OperatorFailed,
    TaskContext,
    TaskInterrupted,
    output_bytes,
)
from streamstate.operators.context import Output as TaskOutput
from streamstate.operators.event_time import TooFarAhead

__all__ = [
    "NEVER_MS",
    "NO_LIMIT_MS",
    "CommitEmitter",
    "CompiledTask",
    "Headers",
    "OperatorFailed",
    "Rebuild",
    "SourceEntry",
    "SourceLog",
    "TaskContext",
    "TaskInterrupted",
    "TaskOutput",
    "TooFarAhead",
    "compile_task",
    "output_bytes",
]
