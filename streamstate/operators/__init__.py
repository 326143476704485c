"""The runtime of each operator: closures compiled once per task, no IO but the store interface."""

from streamstate.operators.base.commit_results import CommitEmitter
from streamstate.operators.base.compilation import CompiledTask, Rebuild, SourceEntry, SourceLog
from streamstate.operators.base.context import NO_LIMIT_MS, Headers, TaskContext, original, output_bytes
from streamstate.operators.base.context import Output as TaskOutput
from streamstate.operators.base.due_results import FailedResult
from streamstate.operators.base.failures import OperatorFailed, TaskInterrupted
from streamstate.operators.base.holding import AsyncCall, AsyncCalls, HoldingOperator, NoAsyncCalls
from streamstate.operators.base.schedules import NEVER_MS
from streamstate.operators.compile import compile_task
from streamstate.operators.topics.timestamps import TooFarAhead

__all__ = [
    "NEVER_MS",
    "NO_LIMIT_MS",
    "AsyncCall",
    "AsyncCalls",
    "CommitEmitter",
    "CompiledTask",
    "FailedResult",
    "Headers",
    "HoldingOperator",
    "NoAsyncCalls",
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
