"""Apply the error policies of a task: to records, and to results that were held back for a commit or came due later.

The handler first takes back everything that the failed record has staged and sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from streamstate.engine.ports import Message
from streamstate.engine.task.dead_letters import (
    FailedRecordLog,
    dead_letter,
    dead_result,
    processing_error,
    too_far_ahead,
)
from streamstate.graph.error_policy import ErrorPolicy
from streamstate.operators.base.compilation import SourceEntry
from streamstate.operators.base.context import Output as TaskOutput
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.due_results import FailedResult
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.topics.timestamps import TooFarAhead
from streamstate.state.undo import UndoLog, rollback

_FAILED = b"failed"


class ErrorPolicyHandler:
    """Applies error policies, and counts failures.

    Args:
        task: its id, for messages.
        now_ms: the wall clock.
        undo: what the record in hand has staged; None when no policy needs it.
    """

    def __init__(self, task: str, now_ms: Callable[[], int], undo: UndoLog | None) -> None:
        # In a dict, so that the undo log can take a count back: a result that fails again with its record counts once.
        self._counts = {_FAILED: 0}
        self._task = task
        self._undo = undo
        self._log = FailedRecordLog(task, now_ms)
        self._context: TaskContext | None = None
        self._policies: Mapping[str, ErrorPolicy] = {}

    @property
    def failed(self) -> int:
        """Number of records and results that were skipped or sent to a dead-letter topic."""
        return self._counts[_FAILED]

    def begin(self, context: TaskContext, policies: Mapping[str, ErrorPolicy]) -> None:
        """Take the context of a newly compiled task, and the policies of operators that have their own."""
        self._context = context
        self._policies = policies
        context.due_failed = self._due_failed

    def record_failed(self, failure: OperatorFailed, message: Message, entry: SourceEntry, mark: int) -> None:
        """Apply the policy of a record.

        Args:
            failure: what failed.
            message: the record.
            entry: the source that it entered by.
            mark: number of outputs before it.

        Raises:
            ProcessingError: the policy is ``fail``.
        """
        if isinstance(failure, TooFarAhead):
            self._too_far_ahead(failure, message)
        else:
            self._apply_policy(failure, message, entry.on_error, mark, partial(dead_letter, failure, message))

    def result_failed(self, failure: OperatorFailed, result: FailedResult, on_error: ErrorPolicy, mark: int) -> None:
        """Apply the policy of a result that was held back for the commit. It comes from many records, so it names none.

        Args:
            failure: what failed.
            result: what is known of it.
            on_error: the policy.
            mark: number of outputs before it.
        """
        self._apply_policy(failure, None, on_error, mark, partial(dead_result, failure, result))

    def _due_failed(
        self, failure: OperatorFailed, result: FailedResult, on_error: ErrorPolicy, mark: int, savepoint: int
    ) -> None:
        """Apply the policy of a result that came due while something else was in hand, see ``TaskContext``.

        Args:
            failure: what failed.
            result: what is known of it.
            on_error: the policy.
            mark: number of outputs before it.
            savepoint: length of the undo log before it.

        Raises:
            OperatorFailed: the policy is ``fail``; the caller that has the record in hand ends the task.
        """
        if failure.ends or self._policies.get(failure.operator, on_error).action == "fail":
            failure.ends = True
            raise failure
        self._apply_policy(failure, None, on_error, mark, partial(dead_result, failure, result), savepoint)

    def _apply_policy(
        self,
        failure: OperatorFailed,
        message: Message | None,
        on_error: ErrorPolicy,
        mark: int,
        make_dead_letter: Callable[[TaskContext, str], TaskOutput],
        savepoint: int = 0,
    ) -> None:
        context = self._context
        assert context is not None, "a record before the task was compiled"
        policy = self._policies.get(failure.operator, on_error)
        if failure.ends or policy.action == "fail" or self._undo is None:
            raise processing_error(failure, message, self._task) from failure.__cause__
        del context.outputs[mark:]
        rollback(self._undo, savepoint)
        if policy.topic is not None:
            context.outputs.append(make_dead_letter(context, policy.topic))
        failed = self._counts[_FAILED]
        if savepoint:
            # The record in hand can still take this back.
            self._undo.append((self._counts, _FAILED, failed))
        self._counts[_FAILED] = failed + 1
        self._log.record(failure, message, policy)

    def _too_far_ahead(self, failure: TooFarAhead, message: Message) -> None:
        context, policy = self._context, failure.policy
        assert context is not None, "a record before the task was compiled"
        if policy.action == "fail":
            raise too_far_ahead(failure, message, self._task)
        if policy.topic is None:
            context.dropped += 1
        else:
            self._counts[_FAILED] += 1
            context.outputs.append(dead_letter(failure, message, context, policy.topic))
        self._log.record(failure, message, policy)
