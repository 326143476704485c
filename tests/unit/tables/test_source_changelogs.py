"""The topic of a table as the changelog of its store."""

from __future__ import annotations

from typing import Any

import pytest

from streamstate import (
    TaskCorrupted,
    Topology,
)
from streamstate.engine.assign.topics import CHANGELOG_CONFIG, Topics, prepare_topics
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.application import MemoryApplication
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from tests.unit.tables.support import POLICIES, TEXT, feed, joined, results

# -- the source topic as the changelog -----------------------------------------------------------------------------


def test_a_table_whose_topic_can_be_its_changelog_has_no_other() -> None:
    run = joined()
    assert [topic for topic in run.broker.topics() if "changelog" in topic] == []


@pytest.mark.parametrize("options", [{"own_changelog": True}, {"on_error": "continue"}, {"compacted": ""}])
def test_a_table_whose_topic_cannot_be_its_changelog_has_its_own(options: dict[str, Any]) -> None:
    run = joined(**options)
    feed(run, "in", ("a", "x"))
    assert run.state("in.table") == {b"a": b"x"}
    run.app.disks.clear()
    run.restart(close=False)
    feed(run, "s", ("a", "1"))
    assert results(run) == [("a", "1+x")]


@pytest.mark.parametrize("close", [True, False])
def test_lost_rows_are_restored_from_the_source_up_to_what_is_processed(close: bool) -> None:
    run = joined(timestamp=lambda key, value: 1_000 + len(value))
    feed(run, "in", ("a", "x"), ("b", "y"), ("b", None), ("a", "zz"))
    worker = run.workers.pop("w")
    worker.close() if close else run.broker.expel("w")
    run.app.disks.clear()
    # Not processed yet: the stream's record, of an earlier event time, must not meet it.
    run.broker.append("in", key=b"a", value=b"later", timestamp=2_000)
    run.broker.append("s", key=b"a", value=b"1", timestamp=1)
    run.start()
    run.ticks(20)
    assert results(run, "left")[-1:] == [("a", "1+zz")]
    store = next(iter(run.worker.assignment.tasks.values())).stores["in.table"]
    assert store.get(b"a") == ("later", 1_005)
    assert store.get(b"b") is None


def test_a_crash_between_the_commit_and_the_store_is_repaired_from_the_source() -> None:
    run = joined()
    feed(run, "in", ("a", "x"))
    task = next(iter(run.worker.assignment.tasks.values()))
    # The store keeps what it was before this commit.
    task.backend.apply = lambda *_, **__: None  # type: ignore[union-attr,method-assign,assignment]
    feed(run, "in", ("a", "y"))
    assert run.offset() is not None
    disk = run.app.disks["w"]
    (backend,) = disk.backends.values()
    del backend.apply
    assert backend.positions() == {"in.table": 1}
    run.restart(close=False)
    feed(run, "s", ("a", "1"))
    assert results(run) == [("a", "1+y")]


def test_offsets_that_were_put_back_rebuild_the_rows_as_they_were_there() -> None:
    run = joined()
    feed(run, "in", ("a", "x"), ("a", "y"))
    run.workers.pop("w").close()
    backend = next(iter(run.app.disks["w"].backends.values()))
    # As if the store were ahead of the group's offset.
    backend.apply({"in.table": {b"ghost": b"\x01" + bytes(8) + b"z"}}, {"in.table": 99}, {})
    run.start()
    feed(run, "s", ("a", "1"), ("ghost", "1"))
    assert results(run) == [("a", "1+y")]


def configured(config: dict[str, str], *existing: str) -> Topics:
    topology = Topology("t")
    topology.table("in", key=TEXT, value=TEXT, store="rows").to_stream().to("out")
    broker = MemoryBroker(ManualClock())
    broker.create_topic("in", 1, config)
    for topic in existing:
        broker.create_topic(topic, 1, CHANGELOG_CONFIG)
    return prepare_topics(topology.build(), "app", MemoryAdmin(broker))


@pytest.mark.parametrize(("config", "reused"), POLICIES.values(), ids=POLICIES)
def test_a_topic_that_keeps_its_rows_is_the_changelog(config: dict[str, str], reused: bool) -> None:
    topics = configured(config)
    assert topics.graph.stores["rows"].reuse is reused
    assert ("app-rows-changelog" in topics.created) is not reused
    assert ("rows" in topics.plan.changelogs) is not reused


def test_a_changelog_that_exists_stays_in_use() -> None:
    topics = configured({"cleanup.policy": "compact"}, "app-rows-changelog")
    assert not topics.graph.stores["rows"].reuse


def test_local_copies_are_used_no_longer_than_the_source_keeps_tombstones() -> None:
    day_ms = 24 * 60 * 60 * 1_000
    compacted = {"cleanup.policy": "compact"}
    assert configured({**compacted, "delete.retention.ms": str(day_ms)}).copies_usable_s < day_ms / 1_000
    assert configured({**compacted, "delete.retention.ms": str(30 * day_ms)}).copies_usable_s == 6 * day_ms / 1_000


def test_a_table_whose_rows_would_be_lost_by_a_new_changelog_is_refused() -> None:
    run = joined()
    feed(run, "in", ("a", "x"))
    run.workers.pop("w").close()
    topology = Topology("t")
    topology.table("in", key=TEXT, value=TEXT, own_changelog=True, store="in.table").to_stream().to("out")
    run.app = MemoryApplication(topology.build(), run.broker, run.clock, run.app.settings)
    run.start("other")
    with pytest.raises(TaskCorrupted, match=r"'in.table' is empty: so far the topic itself was the changelog"):
        run.ticks(4)
