"""What a poll has brought, arranged for the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from streamstate.engine.ports import Message, TopicPartition

Mark = TypeVar("Mark", str, int)


def by_partition(messages: Sequence[Message], one_topic: bool) -> list[tuple[TopicPartition, Sequence[Message]]]:
    """Runs of the same partition, in order.

    Args:
        one_topic: true when they cannot be of several topics: then only the first one of a run is asked for its own,
            which is half of what this costs.
    """
    if not messages:
        return []
    runs: list[tuple[TopicPartition, Sequence[Message]]] = []
    for partition, group in _runs(messages, [message.partition() for message in messages]):
        if one_topic:
            runs.append((TopicPartition(group[0].topic(), partition), group))
            continue
        for topic, part in _runs(group, [message.topic() for message in group]):
            runs.append((TopicPartition(topic, partition), part))
    return runs


def _runs(messages: Sequence[Message], marks: list[Mark]) -> list[tuple[Mark, Sequence[Message]]]:
    """Records with the same mark behind each other."""
    # Mostly a batch is from one fetch: counting takes a third of looking at each.
    if marks.count(marks[0]) == len(marks):
        return [(marks[0], messages)]
    found: list[tuple[Mark, Sequence[Message]]] = []
    begin = 0
    for mark, same in groupby(marks):
        end = begin + len(list(same))
        found.append((mark, messages[begin:end]))
        begin = end
    return found
