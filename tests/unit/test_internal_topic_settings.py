"""Internal topics that somebody else has made: settings that lose or change data are refused, others are not."""

from __future__ import annotations

import logging

import pytest

from streamstate import Topology, TopologyError, serde
from streamstate.engine.assign.topics import CHANGELOG_CONFIG, REPARTITION_CONFIG
from streamstate.engine.settings import WorkerSettings
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.application import MemoryApplication
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock

TEXT = serde.string()
CHANGELOG, REPARTITION = "t-c-changelog", "t-c-repartition"
GOOD = {CHANGELOG: CHANGELOG_CONFIG, REPARTITION: REPARTITION_CONFIG}


def started(topics: dict[str, dict[str, str]]) -> MemoryApplication:
    clock = ManualClock(0)
    broker = MemoryBroker(clock)
    broker.create_topic("in", 1)
    for name, config in topics.items():
        broker.create_topic(name, 1, config)
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).group_by(lambda k, v: v, key=TEXT).count(store="c").to_stream().to(
        "out"
    )
    return MemoryApplication(topology.build(), broker, clock, WorkerSettings("t"))


@pytest.mark.parametrize(
    ("topic", "setting", "value", "wanted"),
    [
        (CHANGELOG, "cleanup.policy", "delete", "compact"),
        (CHANGELOG, "cleanup.policy", "compact,delete", "compact"),
        (CHANGELOG, "delete.retention.ms", "1000", "604800000"),
        (CHANGELOG, "delete.retention.ms", "604799999", "604800000"),
        (REPARTITION, "cleanup.policy", "compact", "delete"),
        (REPARTITION, "cleanup.policy", "compact,delete", "delete"),
        (REPARTITION, "retention.ms", "604800000", "-1"),
        (REPARTITION, "retention.bytes", "1000000", "-1"),
        (REPARTITION, "message.timestamp.type", "LogAppendTime", "CreateTime"),
    ],
)
def test_a_setting_that_loses_data_is_refused(topic: str, setting: str, value: str, wanted: str) -> None:
    with pytest.raises(TopologyError) as caught:
        started({topic: {**GOOD[topic], setting: value}})
    message = str(caught.value)
    assert f"{topic!r} has {setting}={value}" in message
    assert f"--entity-name {topic} --add-config {setting}={wanted}" in message


def test_all_of_them_are_said_at_once() -> None:
    with pytest.raises(TopologyError) as caught:
        started({CHANGELOG: {"cleanup.policy": "delete"}, REPARTITION: {}})
    assert len(str(caught.value).splitlines()) == 3
    for setting in ("cleanup.policy=compact", "delete.retention.ms=604800000", "retention.ms=-1"):
        assert f"--add-config {setting}" in str(caught.value)


def test_the_settings_that_it_gives_itself_are_accepted() -> None:
    assert started(GOOD).topics.created == ("t-metadata", "out")


@pytest.mark.parametrize(
    "config",
    [
        {"min.compaction.lag.ms": "1"},
        {"max.compaction.lag.ms": "86400000"},
        {"segment.ms": "60000"},
        {"retention.ms": "1"},
    ],
)
def test_settings_that_lose_nothing_are_the_operators_business(config: dict[str, str]) -> None:
    """Compaction keeps the newest value of every key, whenever it comes; without ``delete`` nothing goes by time."""
    assert started({CHANGELOG: {**CHANGELOG_CONFIG, **config}}).topics.created == (REPARTITION, "t-metadata", "out")


def test_a_leader_that_may_lack_records_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "streamstate"):
        started({CHANGELOG: {**CHANGELOG_CONFIG, "unclean.leader.election.enable": "true"}})
    assert f"--entity-name {CHANGELOG} --add-config unclean.leader.election.enable=false" in caplog.text


def test_settings_that_cannot_be_read_are_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryAdmin, "config", lambda self, names: {})
    with caplog.at_level(logging.WARNING, "streamstate"):
        started(GOOD)
    assert f"the settings of topics {CHANGELOG}, {REPARTITION} cannot be read" in caplog.text
    assert "DESCRIBE_CONFIGS" in caplog.text
