"""Decide where an input starts that has no committed offset.

``reset`` of a source refers to the moment when the group first read the topic. Each committed offset keeps the number
of partitions that the topic had then. A partition that was added later is read from its beginning, so that records
count that were written before anyone noticed the partition. A crash before the group's first commit of a topic leaves
no number, so the next start counts as the first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from streamstate.engine.ports import Consumer, Position, TopicPartition
from streamstate.engine.task.inputs import Input
from streamstate.engine.task.offset_metadata import partitions_at_start
from streamstate.engine.task.task import INPUT_ID_FACT, Task
from streamstate.errors import OffsetOutOfRange

log = logging.getLogger("streamstate.assignment")

Committed = Mapping[TopicPartition, Position | None]


class StartOffsets:
    """Finds out how many partitions topics had when the group first read them.

    Args:
        consumer: returns committed offsets.
        counts: partitions of every topic the topology reads; the owner keeps them current.
    """

    def __init__(self, consumer: Consumer, counts: Mapping[str, int]) -> None:
        self._consumer = consumer
        self._counts = counts

    def load_partitions_at_start(self, inputs: Iterable[Input], committed: Committed, timeout_ms: int) -> None:
        """Set ``at_start`` of each input whose source does not start at the earliest record anyway.

        Args:
            inputs: that are about to be started.
            committed: positions of these.
            timeout_ms: of the question for those of other partitions, which is asked only while it is not known.

        Raises:
            Retriable: these are not settled yet.
        """
        unknown: dict[str, list[Input]] = {}
        for input_ in inputs:
            assert input_.entry is not None, "initialised before it was opened"
            if input_.entry.reset == "earliest":
                continue
            position = committed.get(input_.partition)
            found = None if position is None else partitions_at_start(position.metadata)
            if found is None:
                unknown.setdefault(input_.partition.topic, []).append(input_)
            else:
                input_.at_start = found
        if not unknown:
            return
        siblings = [
            partition
            for topic, waiting in unknown.items()
            for number in range(max(self._counts.get(topic, 0), *(i.partition.partition + 1 for i in waiting)))
            if (partition := TopicPartition(topic, number)) not in committed
        ]
        every = {**committed, **(self._consumer.committed(siblings, timeout_ms) if siblings else {})}
        for topic, waiting in unknown.items():
            known = {
                p.partition: position for p, position in every.items() if p.topic == topic and position is not None
            }
            for input_ in waiting:
                input_.at_start = _at_start(known, self._counts.get(topic, 0))


def _at_start(known: Mapping[int, Position], present: int) -> int:
    """Return how many partitions a topic had when the group first read it.

    Args:
        known: committed positions by partition, of all that have one.
        present: how many it has now.

    >>> _at_start({}, 4)
    4
    >>> _at_start({0: Position(7, "t=5;n=2")}, 4)
    2

    Committed by a tool, or by a source that was read from its earliest record: it had those at least.

    >>> _at_start({0: Position(7), 2: Position(0)}, 4)
    3
    """
    counts = [count for position in known.values() if (count := partitions_at_start(position.metadata)) is not None]
    if counts:
        return min(counts)
    return max(known) + 1 if known else present


def start_offset(input_: Input, start: int, end: int) -> int:
    """Return the offset at which an input without a committed offset starts.

    Args:
        input_: the input, with ``at_start`` set.
        start, end: of its log.

    Raises:
        OffsetOutOfRange: its source says ``reset="error"``.
    """
    assert input_.entry is not None, "initialised before it was opened"
    topic, number = input_.partition
    if input_.entry.reset == "earliest":
        return start
    if input_.at_start is not None and number >= input_.at_start:
        log.info(
            "topic %r, partition %d, was not there when the group first read the topic: it is read from its beginning",
            topic,
            number,
        )
        return start
    if input_.entry.reset == "error":
        raise OffsetOutOfRange(
            f"topic {topic!r}, partition {number}: the group has no committed offset and the source says "
            f"reset='error'; use reset='earliest' or reset='latest'"
        )
    return end


def applied_offsets(
    task: Task, topic_ids: Mapping[str, str], committed: Committed
) -> tuple[dict[tuple[str, int], int], set[str]]:
    """Return the offset up to which local state reflects each input, and the topics that were created again since.

    Nothing of those is reflected, and no partition of theirs was there when the group first read the topic: ``latest``
    begins at their beginning. Their new ids are kept with the first commit, so that a crash before it leaves the next
    start where this one was.

    Args:
        task: opened.
        topic_ids: of its inputs, where they are known.
        committed: positions of its inputs.
    """
    assert task.backend is not None, "initialised before it was opened"
    facts, present = task.backend.facts(), {}
    anew: set[str] = set()
    for partition, input_ in task.inputs.items():
        fact, topic_id = f"{INPUT_ID_FACT}{partition.topic}", topic_ids.get(partition.topic, "")
        if not topic_id or facts.get(fact) == topic_id:
            continue
        if fact in facts:
            anew.add(partition.topic)
        if fact in facts and committed.get(partition) is None:
            task.new_topic_ids[fact] = topic_id
            if input_.entry is not None and input_.entry.reset != "earliest":
                input_.at_start = 0
        else:
            present[fact] = topic_id
    if present:
        task.backend.note(present)
    applied = {input_: offset for input_, offset in task.backend.offsets().items() if input_[0] not in anew}
    return applied, anew


def warn_foreign_offset(partition: TopicPartition, committed: int, applied: int | None) -> None:
    """Warn that a tool or another consumer has committed an offset.

    Args:
        partition: of the input.
        committed: the offset.
        applied: up to where local state reflects the input; None when it has none.
    """
    behind = "" if applied is None or applied >= committed else f" Local state reflects the records up to {applied}."
    log.warning(
        "topic %r, partition %d: the committed offset %d was set by something else than this application: a tool, or "
        "another consumer in its group. What lies before it and was not processed is left out.%s",
        partition.topic,
        partition.partition,
        committed,
        behind,
    )
