"""Process the records of one poll: hand them to their tasks, collect outputs, commit in between when it is time.

The life of a record goes on in ``task/record_processor.py`` (tasks with one input) and in ``task/input_merger.py``
(tasks with several).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamstate.engine.assign.assignment import Assignment
from streamstate.engine.commit.coordinator import CommitCoordinator
from streamstate.engine.commit.group_membership import GroupMembership
from streamstate.engine.commit.transaction import TransactionFailed
from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.flow.batches import by_partition
from streamstate.engine.ports import Consumer, Message, Retriable, TopicPartition
from streamstate.engine.task.backpressure import InputBackpressure
from streamstate.engine.task.task import Phase


class BatchProcessor:
    """Processes batches of polled records.

    Args:
        consumer: goes back to records that were polled and not processed.
        assignment: the worker's tasks.
        commits: takes outputs, and commits.
        membership: is told that records were read.
        batch_sizer: ends a batch early, and measures it.
        backpressure: pauses inputs whose buffers are full.
    """

    def __init__(
        self,
        consumer: Consumer,
        assignment: Assignment,
        commits: CommitCoordinator,
        membership: GroupMembership,
        batch_sizer: BatchSizer,
        backpressure: InputBackpressure,
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._commits = commits
        self._membership = membership
        self._batch_sizer = batch_sizer
        self._backpressure = backpressure
        self._one_topic = len(assignment.topics) == 1

    @property
    def buffered(self) -> bool:
        """True while records wait in the buffers of tasks with several inputs."""
        return any(
            input_.buffer
            for task in self._assignment.running()
            if len(task.inputs) > 1
            for input_ in task.inputs.values()
        )

    def process(self, messages: Sequence[Message]) -> None:
        """Process polled records, and buffered ones of tasks with several inputs.

        Raises:
            ProcessingError: a record failed under the policy ``fail``.
            TransactionFailed: polled records were not all processed; they come again after a roll-back.
        """
        self._batch_sizer.begin()
        processed = 0
        try:
            if messages:
                processed = self._process_polled(messages)
            processed += self._process_buffered()
        finally:
            self._batch_sizer.end(processed, len(messages))

    def _process_polled(self, messages: Sequence[Message]) -> int:
        try:
            return self._dispatch(messages)
        except Retriable as error:
            # The client has handed these records over, so that they come again only after a roll-back.
            raise TransactionFailed(f"with records in hand: {error}") from error

    def _dispatch(self, messages: Sequence[Message]) -> int:
        """Process the records of tasks with one input; buffer those of tasks with several."""
        self._membership.records_polled()
        processed = 0
        polled: dict[TopicPartition, int] = {}
        for partition, group in by_partition(messages, self._one_topic):
            task = self._assignment.of_partition.get(partition)
            if task is None or task.phase is not Phase.RUNNING:
                continue
            if len(task.inputs) == 1:
                polled[partition] = group[-1].offset()
                processed += task.process(partition, group, self._batch_sizer)
                self._commits.send(task)
                self._commit_within_batch()
            else:
                task.buffer(partition, group)
        if self._batch_sizer.halted:
            self._seek_back(polled)
        return processed

    def _process_buffered(self) -> int:
        processed = 0
        for task in self._assignment.running():
            if len(task.inputs) > 1:
                processed += task.process_buffered(self._batch_sizer, self._backpressure.may_skip_empty)
                self._commits.send(task)
                self._backpressure.regulate(task)
                self._commit_within_batch()
        return processed

    def _commit_within_batch(self) -> None:
        """Commit now when it is time: where records are slow, an open transaction cannot wait for the whole batch."""
        if self._commits.due():
            self._batch_sizer.rest()
            self._commits.begin()
            self._batch_sizer.resume()

    def _seek_back(self, polled: Mapping[TopicPartition, int]) -> None:
        """Read again what a halted batch did not process.

        Args:
            polled: offset of the last polled record, by partition.
        """
        offsets = {}
        for partition, offset in polled.items():
            task = self._assignment.of_partition.get(partition)
            if task is not None and task.phase is Phase.RUNNING:
                next_offset = task.inputs[partition].next_offset
                if next_offset is not None and next_offset <= offset:
                    offsets[partition] = next_offset
        if offsets:
            self._consumer.start(offsets)
