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
    original,
    output_bytes,
)
from streamstate.operators.context import Output as TaskOutput
from streamstate.operators.event_time import TooFarAhead
from streamstate.operators.held import Call, Calls, Holder, NoCalls

__all__ = [
    "NEVER_MS",
    "NO_LIMIT_MS",
    "Call",
    "Calls",
    "CommitEmitter",
    "CompiledTask",
    "Headers",
    "Holder",
    "NoCalls",
    "OperatorFailed",
    "Rebuild",
    "SourceEntry",
    "SourceLog",
    "TaskContext",
    "TaskInterrupted",
    "TaskOutput",
    "TooFarAhead",
    "compile_task",
    "original",
    "output_bytes",
]
