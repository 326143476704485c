"""A changelog that is gone while offsets say that its content was made: noticed, also without local state."""

from __future__ import annotations

import pytest

from streamstate import TaskCorrupted, Topology, serde
from streamstate.engine.ports import Position, TopicPartition
from streamstate.engine.task.offset_metadata import (
    MOST_MARKS,
    changelog_marks,
    changelog_recreated,
    encode_metadata,
    stream_time_of,
)
from streamstate.testing.memory_broker.application import MemoryApplication
from tests.unit.application_support import GROUP, Run

TEXT = serde.string()
NUMBER = serde.long()
CHANGELOG = f"{GROUP}-counts-changelog"
INPUT = TopicPartition("in", 0)


def counting(*more: str) -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.group_by_key().count(store="counts").to_stream().to("out", value=NUMBER)
    for store in more:
        stream.group_by_key().count(store=store).to_stream().to(f"out-{store}", value=NUMBER)
    return topology


def ran(*, exactly_once: bool = True) -> Run:
    """An application that has counted three records and stopped."""
    run = Run(counting(), exactly_once=exactly_once)
    run.send(b"1", b"2", b"3")
    run.ticks()
    run.workers.pop("w").close()
    return run


def recreate(run: Run, topic: str = CHANGELOG) -> None:
    run.broker.delete_topic(topic)
    run.broker.create_topic(topic, 1, {"cleanup.policy": "compact"})


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize("local_state", [True, False])
def test_a_changelog_made_anew_is_refused_with_and_without_local_state(exactly_once: bool, local_state: bool) -> None:
    run = ran(exactly_once=exactly_once)
    recreate(run)
    if not local_state:
        run.app.disks.clear()
    for _ in range(2):  # Starting again does not make it forget.
        run.start()
        with pytest.raises(TaskCorrupted, match=rf"{CHANGELOG}.*created again.*streamstate reset"):
            run.ticks()
        run.workers.pop("w").close(commit=False)
    assert len(run.out()) == 3


def test_the_command_in_the_message_lets_it_go_on() -> None:
    run = ran()
    recreate(run)
    run.app.disks.clear()
    # What `kafka-consumer-groups.sh --reset-offsets --to-current` commits: the same offset, without our text.
    group = run.broker.group(GROUP)
    group.offsets[INPUT] = Position(group.offsets[INPUT].offset)
    run.start()
    run.send(b"4")
    run.ticks(8)
    assert run.out()[-1] == (b"k", NUMBER.serialize(1))
    # From the first commit on the new topic is the known one.
    run.restart()
    run.send(b"5")
    run.ticks(8)
    assert run.out()[-1] == (b"k", NUMBER.serialize(2))


def test_a_store_that_an_upgrade_adds_is_not_mistaken_for_a_lost_one() -> None:
    run = ran()
    run.app = MemoryApplication(counting("more").build(), run.broker, run.clock, run.app.settings)
    for _ in range(2):  # Each time on a fresh disk.
        run.app.disks.clear()
        run.start()
        run.send(b"x")
        run.ticks(8)
        run.workers.pop("w").close()
    assert [NUMBER.deserialize(value or b"") for _, value in run.out()] == [1, 2, 3, 4, 5]
    assert [NUMBER.deserialize(value or b"") for _, value in run.out("out-more")] == [1, 2]


def test_offsets_that_an_older_version_committed_say_nothing() -> None:
    assert not changelog_recreated("t=5", "counts", "id")
    assert not changelog_recreated("", "counts", "id")
    assert stream_time_of("something=else;t=7;c=abc") == 7
    assert stream_time_of("t=x") == -1


def test_the_text_stays_within_what_brokers_take() -> None:
    ids = {f"store-{number:03}": f"id-{number}" for number in range(400)}
    text = encode_metadata(1 << 62, changelog_marks(ids))
    assert len(text) < 4_096
    assert changelog_recreated(text, "store-000", "other")
    assert not changelog_recreated(text, "store-000", "id-0")
    # Beyond the room there is, a store is not known and not guarded.
    assert not changelog_recreated(text, f"store-{MOST_MARKS:03}", "other")


def test_an_unknown_topic_id_says_nothing() -> None:
    text = encode_metadata(5, changelog_marks({"counts": "", "sums": "id"}))
    assert not changelog_recreated(text, "counts", "id")
    assert not changelog_recreated(text, "sums", "")
