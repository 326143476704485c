"""Backpressure on tasks with several inputs: how long to wait for an empty input, and when to pause a full one."""

from __future__ import annotations

import logging
from typing import Final

from streamstate.engine.ports import Clock, Consumer
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.inputs import Input
from streamstate.engine.task.task import Task

log = logging.getLogger("streamstate.worker")

# Longer than any wait.
_MANY_MS: Final = 10**12


class InputBackpressure:
    """Decides when a task waits for an empty input, and pauses inputs whose buffers are full.

    Args:
        consumer: pauses and resumes partitions, and knows their lag.
        clock: measures waits.
        settings: of the worker.
    """

    def __init__(self, consumer: Consumer, clock: Clock, settings: WorkerSettings) -> None:
        self._consumer = consumer
        self._clock = clock
        self._settings = settings

    def may_skip_empty(self, input_: Input) -> bool:
        """Return true when the task need not wait any longer for this empty input."""
        now = self._clock.monotonic_ms()
        if input_.empty_since_ms is None:
            input_.empty_since_ms = now
        waited = now - input_.empty_since_ms
        lag = self._consumer.lag({input_.partition: input_.next_offset or 0}).get(input_.partition)
        settings = self._settings
        if lag == 0:
            return waited >= settings.max_task_idle_ms
        if lag is None:
            return waited >= max(settings.fetch_wait_ms, settings.max_task_idle_ms)
        # Kafka Streams waits without a limit here. Without waiting, a time-ordered merge or a join would silently miss
        # records.
        enough = waited >= max(settings.behind_wait_ms, settings.max_task_idle_ms)
        if enough and waited < _MANY_MS:
            log.warning(
                "%s[%d] has %d more records, of which none came for %d s: going on without them, out of order",
                input_.partition.topic, input_.partition.partition, lag, waited // 1_000,
            )  # fmt: skip
            # Log it once, until a record comes.
            input_.empty_since_ms = now - _MANY_MS
        return enough

    def regulate(self, task: Task) -> None:
        """Pause inputs whose buffers are full, resume those that have drained."""
        full = self._settings.buffer_records
        for partition, input_ in task.inputs.items():
            if input_.buffer:
                input_.empty_since_ms = None
            if not input_.paused and len(input_.buffer) >= full:
                self._consumer.pause([partition])
                input_.paused = True
            elif input_.paused and len(input_.buffer) < full // 2:
                self._consumer.resume([partition])
                input_.paused = False
