"""A poll's records, arranged by partition."""

from __future__ import annotations

from itertools import groupby

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from streamstate.engine.flow.batches import by_partition
from streamstate.engine.ports import TopicPartition

Place = tuple[str, int]


def polled(places: list[Place]) -> list[Message]:
    return [Message(topic=topic, partition=partition, offset=at) for at, (topic, partition) in enumerate(places)]


def arranged(places: list[Place], one_topic: bool) -> list[tuple[TopicPartition, list[int]]]:
    found = by_partition(polled(places), one_topic)  # type: ignore[arg-type]
    return [(partition, [message.offset() for message in group]) for partition, group in found]


def plainly(places: list[Place]) -> list[tuple[TopicPartition, list[int]]]:
    runs = groupby(range(len(places)), lambda at: places[at])
    return [(TopicPartition(*place), list(offsets)) for place, offsets in runs]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=20))
def test_runs_of_several_topics(places: list[Place]) -> None:
    assert arranged(places, one_topic=False) == plainly(places)


@given(st.lists(st.tuples(st.just("a"), st.integers(0, 2)), max_size=20))
def test_runs_of_one_topic(places: list[Place]) -> None:
    assert arranged(places, one_topic=True) == arranged(places, one_topic=False) == plainly(places)


@pytest.mark.parametrize("topics", ["aab", "abb", "aba"])
def test_the_same_partition_of_another_topic_is_another_run(topics: str) -> None:
    places = [(topic, 0) for topic in topics]
    assert arranged(places, one_topic=False) == plainly(places)
