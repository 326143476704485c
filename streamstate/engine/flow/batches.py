"""Group the records of a poll by partition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from streamstate.engine.ports import Message, TopicPartition

Mark = TypeVar("Mark", str, int)


def by_partition(messages: Sequence[Message], one_topic: bool) -> list[tuple[TopicPartition, Sequence[Message]]]:
    """Return runs of records of the same partition, in order.

    Args:
        messages: as the poll returned them.
        one_topic: true when all records are of the same topic. Then only the first record of a run is asked for its
            topic, which halves the cost.
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
    """Return runs of records with equal marks."""
    # Most batches come from one fetch: counting costs a third of comparing each.
    if marks.count(marks[0]) == len(marks):
        return [(marks[0], messages)]
    found: list[tuple[Mark, Sequence[Message]]] = []
    begin = 0
    for mark, same in groupby(marks):
        end = begin + len(list(same))
        found.append((mark, messages[begin:end]))
        begin = end
    return found
