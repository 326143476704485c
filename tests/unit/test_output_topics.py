"""Output topics that are missing get as many partitions as tasks write them, and the log says so."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from streamstate import Topology, dead_letter, serde, windows
from streamstate.engine.assign.topics import prepare_topics
from streamstate.graph.queries import sink_topics, topic_writers
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock

TEXT, LONG = serde.string(), serde.long()


def topology() -> Topology:
    """Two sub-topologies from ``in`` and one from ``small``."""
    made = Topology("t")
    words = made.stream("in", key=TEXT, value=TEXT, on_error=dead_letter("bad"))
    words.to("copy")
    by_value = words.select_key(lambda key, value: value).repartition(name="by-value", partitions=8, key=TEXT)
    by_value.to("both")
    hourly = by_value.group_by_key().windowed_by(windows.tumbling(timedelta(hours=1))).late_to("late")
    hourly.count(store="hourly")
    small = made.stream("small", key=TEXT, value=TEXT, on_error=dead_letter("small-bad"))
    small.to("both")
    small.to(lambda key, value: f"chosen-{value}")
    small.to("there")
    return made


def prepared() -> MemoryBroker:
    broker = MemoryBroker(ManualClock())
    broker.create_topic("in", 4)
    broker.create_topic("small", 2)
    broker.create_topic("there", 1)
    prepare_topics(topology().build(), "app", MemoryAdmin(broker))
    return broker


def test_as_many_partitions_as_tasks_write() -> None:
    broker = prepared()
    counts = {name: info.partitions for name, info in MemoryAdmin(broker).topics(broker.topics()).items()}
    # Failed records of both parts behind ``in`` go to its dead-letter topic.
    assert {name: counts[name] for name in ("copy", "both", "late", "bad", "small-bad", "there")} == {
        "copy": 4,
        "both": 8,
        "late": 8,
        "bad": 8,
        "small-bad": 2,
        "there": 1,
    }


def test_the_log_says_how_to_choose(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "streamstate.topics"):
        prepared()
    said = [record.getMessage() for record in caplog.records]
    assert (
        "created topic 'both' with 8 partitions, as many as tasks write it. For another number create it before the "
        "first start: streamstate topics create both --partitions N"
    ) in said
    assert "created topic 'app-by-value-repartition'" in said
    assert not any("'there'" in line for line in said)


def test_writers_are_known_by_sub_topology() -> None:
    graph = topology().build()
    assert topic_writers(graph) == {
        "copy": ("in",),
        "both": ("by-value-repartition", "small"),
        "late": ("by-value-repartition",),
        "there": ("small",),
        "bad": ("in", "by-value-repartition"),
        "small-bad": ("small",),
    }
    assert sink_topics(graph) == tuple(topic_writers(graph))
