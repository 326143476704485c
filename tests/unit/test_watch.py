"""What others do to the group and the topics while it runs: said, handled or refused within seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from streamstate import ConfigError, Topology, TopologyError, serde
from streamstate.engine.assign.cluster_watch import REPEAT_MS, SETTINGS_MS
from streamstate.engine.assign.metadata_topic import topology_mark
from streamstate.engine.ports import LoginFailed, NotAuthorized, Position, TopicPartition, Unavailable
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.consumer import MemoryConsumer
from tests.unit.application_support import GROUP, Run

TEXT = serde.string()
LOOKED_MS = 11_000


class Deaf:
    """A listener that does nothing."""

    def on_assigned(self, partitions: Any) -> None: ...
    def on_revoked(self, partitions: Any) -> None: ...
    def on_lost(self, partitions: Any) -> None: ...


def copying(*more: str) -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.to("out")
    for store in more:
        stream.group_by_key().count(store=store)
    return topology


def counting() -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.group_by(lambda key, value: value, key=TEXT).count(store="c").to_stream().to("out")
    return topology


def running(topology: Topology, topics: dict[str, int] | None = None, **settings: Any) -> tuple[Run, str]:
    """An application, and the name of a worker that says whose it is."""
    run = Run(topology, topics or {"in": 4, "out": 1}, member_prefix=f"{GROUP}-", **settings)
    return run, f"{GROUP}-w.{topology_mark(run.app.graph)}"


def stranger(run: Run, name: str = "console", protocol: Any = "cooperative") -> MemoryConsumer:
    consumer = MemoryConsumer(run.broker, GROUP, protocol, client_id=name)
    consumer.subscribe(["in"], Deaf())
    return consumer


def turns(run: Run, ms: int, *others: MemoryConsumer) -> None:
    for _ in range(ms // 100):
        run.ticks(1, 100)
        for other in others:
            other.poll(10, 0)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    with caplog.at_level(logging.WARNING, "streamstate"):
        yield lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_plain_consumer_in_the_group_is_said_with_what_it_holds(lines: Any) -> None:
    run, name = running(copying())
    run.start(name)
    turns(run, LOOKED_MS)
    assert lines() == []
    other = stranger(run)
    turns(run, LOOKED_MS, other)
    [line] = [line for line in lines() if "no processes of this application" in line]
    assert "client 'console' at memory holds in-" in line
    assert f"kafka-consumer-groups.sh --describe --group {GROUP}" in line
    other.close()
    turns(run, 2 * REPEAT_MS)
    assert len([line for line in lines() if "no processes of this application" in line]) == 1


def test_it_is_said_again_while_it_lasts(lines: Any) -> None:
    run, name = running(copying())
    run.start(name)
    other = stranger(run)
    turns(run, 2 * REPEAT_MS + LOOKED_MS, other)
    assert 2 <= len([line for line in lines() if "no processes of this application" in line]) <= 3


def test_processes_of_the_same_topology_are_no_strangers(lines: Any) -> None:
    run, name = running(copying())
    run.start(name)
    run.start(name.replace("-w", "-v"))
    turns(run, LOOKED_MS)
    assert lines() == []
    assert len(run.broker.members(GROUP)) == 2


def test_a_process_of_another_topology_is_said(lines: Any) -> None:
    run, name = running(copying())
    run.start(name)
    run.start(f"{GROUP}-v.{topology_mark(copying('counts').build())}")
    turns(run, LOOKED_MS)
    # Both run one graph here, so that both see the one client id.
    assert len(lines()) == 2
    for line in lines():
        assert f"processes of another topology: client '{GROUP}-v." in line
        assert "--application-id" in line


@pytest.mark.parametrize("first", [True, False])
def test_members_of_another_strategy_keep_it_out_until_they_leave(first: bool, lines: Any) -> None:
    run, name = running(copying())
    if not first:
        run.start(name)
        turns(run, 1_000)
        run.broker.expel(name)
    other = stranger(run, protocol="eager")
    other.poll(10, 0)
    if first:
        run.start(name)
    turns(run, LOOKED_MS, other)
    texts = " ".join(lines())
    assert f"consumer group '{GROUP}' has members of another kind" in texts
    assert "client 'console' at memory holds in-0" in texts
    other.close()
    run.send(b"x")
    run.until(lambda: len(run.out()) == 1)


def test_it_does_not_wait_for_ever(lines: Any) -> None:
    run, name = running(copying(), broker_timeout_ms=30_000)
    other = stranger(run, protocol="eager")
    other.poll(10, 0)
    run.start(name)
    with pytest.raises(ConfigError, match=r"members of another kind.*30 s \(--broker-timeout\)"):
        turns(run, 31_000, other)


def test_who_may_not_see_the_members_is_told_once(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: MemoryAdmin, group: str) -> None:
        raise NotAuthorized(f"group {group}")

    monkeypatch.setattr(MemoryAdmin, "members", denied)
    run, name = running(copying())
    run.start(name)
    turns(run, 3 * REPEAT_MS)
    [line] = lines()
    assert "DESCRIBE on the group" in line


def test_a_look_whose_login_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: MemoryAdmin, group: str) -> None:
        raise LoginFailed("invalid token")

    run, name = running(copying())
    run.start(name)
    monkeypatch.setattr(MemoryAdmin, "members", refused)
    with pytest.raises(LoginFailed, match="invalid token"):
        turns(run, LOOKED_MS)


def test_a_look_that_fails_ends_nothing(lines: Any) -> None:
    run, name = running(copying())
    run.start(name)
    turns(run, 1_000)
    failed = 0

    def on_call(actor: str, call: str, phase: str) -> None:
        nonlocal failed
        if call in ("admin.members", "admin.topics") and phase == "before":
            failed += 1
            raise Unavailable("injected")

    run.broker.on_call = on_call
    turns(run, 2 * LOOKED_MS)
    assert failed >= 6
    run.broker.on_call = None
    other = stranger(run)
    turns(run, LOOKED_MS, other)
    assert any("no processes of this application" in line for line in lines())


def test_what_a_stranger_has_committed_is_said_when_it_has_gone_unseen(lines: Any) -> None:
    """It came and went between two looks."""
    run, name = running(counting(), {"in": 1, "out": 1})
    run.send(b"a")
    run.start(name)
    run.until(lambda: len(run.out()) == 1)
    run.send(b"b", b"c")
    run.broker.expel(name)
    other = stranger(run)
    run.broker.group(GROUP).offsets[TopicPartition("in", 0)] = Position(3)
    other.close()
    turns(run, 1_000)
    [line] = [line for line in lines() if "something else than this application" in line]
    assert "topic 'in', partition 0: the committed offset 3" in line


# Topics


def test_an_input_that_grows_under_state_ends_every_process() -> None:
    """Also those that do not get the new partition: records of other keys may come to theirs already."""
    run = Run(counting(), {"in": 2, "out": 1})
    run.start("a")
    run.start("b")
    turns(run, 1_000)
    run.broker.topic("in").logs.append(type(run.broker.topic("in").logs[0])("in", 2))  # the group does not know
    every = dict(run.workers)
    for name, worker in every.items():
        run.workers = {name: worker}
        with pytest.raises(TopologyError, match=r"went from 2 to 3 under existing state"):
            turns(run, LOOKED_MS)


def test_a_repartition_topic_that_grows_is_refused() -> None:
    """By its producers' count keys would go to tasks that do not hold their state."""
    run = Run(counting(), {"in": 2, "out": 1})
    run.ticks()
    run.broker.topic(f"{GROUP}-c-repartition").logs.append(type(run.broker.topic("in").logs[0])("x", 2))
    with pytest.raises(TopologyError, match=rf"'{GROUP}-c-repartition' exists with 3 partitions, but must have 2"):
        turns(run, LOOKED_MS)


def test_a_count_that_only_one_answer_has_is_no_change() -> None:
    """A broker that has just come back may know less than there is."""
    run = Run(counting(), {"in": 2, "out": 1})
    run.ticks()
    logs = run.broker.topic(f"{GROUP}-c-changelog").logs
    lost, looks = logs.pop(), 0

    def on_call(actor: str, call: str, phase: str) -> None:
        nonlocal looks
        if call == "admin.topics" and phase == "after":
            looks += 1
            if looks == 3 and len(logs) == 1:
                logs.append(lost)

    run.broker.on_call = on_call
    turns(run, 3 * LOOKED_MS)
    assert looks > 4


def test_co_partitioned_inputs_of_which_one_grows_are_refused() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    table = topology.table("rows", key=TEXT, value=TEXT, store="rows")
    stream.join(table, lambda value, row: value + row, name="j").to("out", value=TEXT)
    run = Run(topology, {"in": 2, "rows": 2, "out": 1}, compacted="rows", eager=True)
    run.app.protocol = "eager"
    run.ticks()
    run.broker.add_partitions("in", 3)
    with pytest.raises(TopologyError, match=r"'in' has 3 partitions, 'rows' has 2|'rows' has 2 partitions, 'in' has 3"):
        turns(run, LOOKED_MS)


def test_a_topic_that_is_deleted_meanwhile_is_no_misfit() -> None:
    run = Run(copying(), {"in": 2, "out": 1})
    run.send(b"a", partition=0)
    run.until(lambda: len(run.out()) == 1)
    run.broker.delete_topic("in")
    turns(run, 2 * LOOKED_MS)
    run.broker.create_topic("in", 2)
    run.send(b"b", partition=0)
    run.until(lambda: len(run.out()) == 2)


def test_settings_that_change_while_it_runs_are_said(lines: Any) -> None:
    run = Run(counting(), {"in": 1, "out": 1})
    run.ticks()
    run.broker.topic(f"{GROUP}-c-repartition").config["retention.ms"] = "1000"
    run.broker.topic(f"{GROUP}-c-changelog").config["delete.retention.ms"] = "60000"
    run.broker.topic(f"{GROUP}-metadata").config["cleanup.policy"] = "delete"
    turns(run, SETTINGS_MS + LOOKED_MS)
    said = [line for line in lines() if "changed while it runs" in line]
    assert len(said) == 3
    for topic, fix in (
        ("c-repartition", "retention.ms=-1"),
        ("c-changelog", "delete.retention.ms=604800000"),
        ("metadata", "cleanup.policy=compact"),
    ):
        assert any(f"--entity-name {GROUP}-{topic} --add-config {fix}" in line for line in said)
    run.send(b"x")
    run.until(lambda: len(run.out()) == 1)


def test_an_output_topic_that_grows_is_written_by_its_new_count() -> None:
    run = Run(copying(), {"in": 1, "out": 1})
    keys = [f"k{number}" for number in range(20)]
    run.send(*((key.encode(), b"v") for key in keys))
    run.until(lambda: len(run.out()) == 20)
    run.broker.add_partitions("out", 4)
    run.send(*((key.encode(), b"v") for key in keys))
    run.until(lambda: len(run.out()) == 40)
    for key in keys:
        at = run.broker.place("out", key.encode(), -1)
        assert (key.encode(), b"v") in run.out("out", at.partition)
    assert {at.partition for at in (run.broker.place("out", key.encode(), -1) for key in keys)} == {0, 1, 2, 3}


def test_the_mark_says_which_topology_it_is() -> None:
    assert topology_mark(copying().build()) == topology_mark(copying().build())
    marks = {topology_mark(topology.build()) for topology in (copying(), copying("a"), copying("b"), counting())}
    assert len(marks) == 4
    assert TopicPartition("in", 0) not in marks
