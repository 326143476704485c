"""What a poll has brought, arranged for the tasks."""

from __future__ import annotations

from collections.abc import Sequence

from streamstate.engine.ports import Message, TopicPartition


def by_partition(messages: Sequence[Message]) -> list[tuple[TopicPartition, Sequence[Message]]]:
    """Runs of the same partition, in order."""
    runs: list[tuple[TopicPartition, Sequence[Message]]] = []
    begin = 0
    topic, partition = messages[0].topic(), messages[0].partition()
    for index, message in enumerate(messages):
        if message.partition() != partition or message.topic() != topic:
            runs.append((TopicPartition(topic, partition), messages[begin:index]))
            begin, topic, partition = index, message.topic(), message.partition()
    runs.append((TopicPartition(topic, partition), messages[begin:]))
    return runs
