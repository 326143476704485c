"""Changelogs and offsets that do not fit the local state."""

from __future__ import annotations

import pytest

from streamstate import TaskCorrupted
from streamstate.engine.ports import TopicPartition
from tests.unit.application_support import GROUP, Run
from tests.unit.worker.support import counting, long

# -- changelogs --------------------------------------------------------------------------------------------------


def test_a_changelog_made_anew_under_existing_state_is_refused() -> None:
    run = Run(counting())
    run.send(b"1", b"2", b"3")
    run.ticks()
    run.workers.pop("w").close()
    run.broker.delete_topic("app-counts-changelog")
    run.broker.create_topic("app-counts-changelog", 1, {"cleanup.policy": "compact"})
    run.start()
    with pytest.raises(TaskCorrupted, match=r"store 'counts'.*'app-counts-changelog', partition 0.*streamstate reset"):
        run.ticks()


def test_a_position_below_the_changelogs_start_rebuilds_the_store() -> None:
    run = Run(counting())
    run.send((b"gone", b"1"), (b"a", b"1"))
    run.ticks()
    run.workers.pop("w").close()
    # Of what follows, local state knows nothing; deletions among it are gone from the log.
    run.broker.append("app-counts-changelog", key=b"gone", value=None)
    _, end = run.broker.append("app-counts-changelog", key=b"a", value=b"\x01" + bytes(8) + long(5))
    run.broker.delete_records({TopicPartition("app-counts-changelog", 0): end})
    run.start()
    run.send((b"gone", b"2"), (b"a", b"2"))
    run.ticks(10)
    assert run.out()[2:] == [(b"gone", long(1)), (b"a", long(6))]


def test_a_changelog_truncated_while_it_is_read_is_read_again_from_its_start() -> None:
    run = Run(counting(), restore_batch=2)
    run.send(*((b"%d" % number, b"x") for number in range(20)))
    run.ticks()
    run.workers.pop("w").close()
    run.app.disks.clear()
    run.start()
    run.ticks(3)
    assert run.worker.status().restore.remaining > 0
    run.broker.delete_records({TopicPartition("app-counts-changelog", 0): 15})
    run.ticks(20)
    run.send((b"19", b"x"))
    run.ticks()
    assert run.out()[-1] == (b"19", long(2))


def test_restoring_reads_only_what_is_missing_and_past_a_trailing_gap() -> None:
    run = Run(counting())
    run.send(*((b"%d" % number, b"x") for number in range(20)))
    run.ticks()
    run.broker.compact("app-counts-changelog", markers=False, trailing_marker=False)
    restarted = run.restart()
    run.ticks()
    assert restarted.status().restore.records == 0
    run.app.disks.clear()
    again = run.restart()
    run.ticks(10)
    assert again.status().restore.records == 20
    run.send((b"7", b"x"))
    run.ticks()
    assert run.out()[-1] == (b"7", long(2))


# -- offsets behind the state ----------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [1, None])
def test_offsets_behind_what_local_state_reflects_are_refused(found: int | None) -> None:
    """Set back, expired, or lost by a broker: the records would be counted twice."""
    run = Run(counting())
    run.send(b"a", b"b", b"c")
    run.until(lambda: run.offset() == 3)
    run.workers.pop("w").close()
    offsets = run.broker.group(GROUP).offsets
    partition = TopicPartition("in", 0)
    before = offsets.pop(partition)
    if found is not None:
        offsets[partition] = before._replace(offset=found)
    run.start()
    with pytest.raises(TaskCorrupted, match=r"topic 'in', partition 0.*up to 3.*counted twice.*streamstate reset"):
        run.ticks(20)
    run.workers.pop("w").close(commit=False)
    # Put right again, it goes on where it was.
    offsets[partition] = before
    run.start()
    run.send(b"d")
    run.until(lambda: run.offset() == 4)
    assert run.out() == [(b"k", long(number)) for number in (1, 2, 3, 4)]


def test_an_input_that_was_created_again_is_read_from_its_beginning() -> None:
    run = Run(counting())
    run.send(b"a", b"b", b"c")
    run.until(lambda: run.offset() == 3)
    run.workers.pop("w").close()
    run.broker.delete_topic("in")
    run.broker.create_topic("in", 1)
    run.start()
    for value in (b"d", b"e"):
        run.send(value)
        run.ticks(10)
    run.workers.pop("w").close()
    run.start()
    run.send(b"f")
    run.until(lambda: run.offset() == 3)
    assert [value for _, value in run.out()] == [long(number) for number in range(1, 7)]
