"""What a poll has brought, arranged for the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import methodcaller

from streamstate.engine.ports import Message, TopicPartition

_TOPIC, _PARTITION = methodcaller("topic"), methodcaller("partition")


def by_partition(messages: Sequence[Message]) -> list[tuple[TopicPartition, Sequence[Message]]]:
    """Runs of the same partition, in order."""
    runs: list[tuple[TopicPartition, Sequence[Message]]] = []
    begin = 0
    # Without a step of Python's per record.
    for (topic, partition), same in groupby(zip(map(_TOPIC, messages), map(_PARTITION, messages), strict=True)):
        end = begin + len(list(same))
        runs.append((TopicPartition(topic, partition), messages[begin:end]))
        begin = end
    return runs
