"""The inputs of tasks that read several partitions: when to wait for an empty one, and when to pause a full one."""

from __future__ import annotations

from streamstate.engine.inputs import Input
from streamstate.engine.ports import Clock, Consumer
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task import Task


class Buffers:
    """See the module.

    Args:
        consumer: pauses and resumes, and knows the lag.
        clock: for waits.
        settings: the worker's.
    """

    def __init__(self, consumer: Consumer, clock: Clock, settings: WorkerSettings) -> None:
        self._consumer = consumer
        self._clock = clock
        self._settings = settings

    def may_go_on_without(self, input_: Input) -> bool:
        """Whether the others need not wait any longer for this empty input."""
        now = self._clock.monotonic_ms()
        if input_.empty_since_ms is None:
            input_.empty_since_ms = now
        waited = now - input_.empty_since_ms
        lag = self._consumer.lag({input_.partition: input_.next_offset or 0}).get(input_.partition)
        if lag == 0:
            return waited >= self._settings.max_task_idle_ms
        return waited >= max(self._settings.fetch_wait_ms, self._settings.max_task_idle_ms)

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
