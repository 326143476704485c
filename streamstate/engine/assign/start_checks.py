"""Checks of a task before it starts: its committed offsets, its logs and its local state must fit each other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from streamstate.engine.ports import TopicPartition
from streamstate.engine.task.store_marks import StoreMark
from streamstate.engine.task.task import Task
from streamstate.errors import OffsetOutOfRange, TaskCorrupted

log = logging.getLogger("streamstate.assignment")


def resolve_committed_offset(
    partition: TopicPartition, committed: int, start: int, end: int, policy: Literal["fail", "earliest", "latest"]
) -> int:
    """Return the offset to start at: the committed one, or what the policy says when the log does not have it.

    Args:
        partition: of the input.
        committed: its committed offset.
        start, end: of its log.
        policy: see ``WorkerSettings.out_of_range``.

    Raises:
        OffsetOutOfRange: the log does not have the committed offset, and the policy is ``fail``.
    """
    if start <= committed <= end:
        return committed
    if committed < start:
        what = f"retention has deleted {start - committed} offsets that were not processed yet"
    else:
        what = "the topic was deleted and created again, or lost records"
    message = (
        f"topic {partition.topic!r}, partition {partition.partition}: the committed offset is {committed}, the "
        f"log has {start} to {end}: {what}"
    )
    if policy == "fail":
        raise OffsetOutOfRange(f"{message}. To go on without them, say from where: --out-of-range earliest, or latest")
    log.warning("%s; going on from the %s record, as told", message, policy)
    return start if policy == "earliest" else end


def refuse_behind(task: Task, partition: TopicPartition, committed: int | None, applied: int | None) -> None:
    """Refuse to process records again that local state reflects already.

    Kafka commits before the state is written, so state is never ahead by itself.

    Raises:
        TaskCorrupted: the group's offset is behind the one up to which the state was made.
    """
    if applied is None or (committed is not None and committed >= applied):
        return
    found = "has no committed offset" if committed is None else f"has the committed offset {committed}"
    raise TaskCorrupted(
        f"task {task.id}: topic {partition.topic!r}, partition {partition.partition}: the group {found}, but local "
        f"state reflects the records up to {applied}, which would be counted twice. The offsets were set back, have "
        f"expired, or were lost by the broker. To go on where the state is, set the group's offset to {applied}; to "
        f"start over from the input, run 'streamstate reset'; to count these records again on purpose, delete the "
        f"task's local state, which then comes back from its changelog"
    )


def refuse_empty_changelog(
    task: Task,
    store: str,
    starts: Mapping[TopicPartition, int],
    changelog_end: int,
    known_marks: Mapping[str, tuple[StoreMark, ...]] | None,
) -> None:
    """Refuse a table whose rows were in its topic so far, and would have to be in a changelog that is empty.

    Raises:
        TaskCorrupted: the topic is processed in part, and the changelog is empty.
    """
    topic = task.stores[store].spec.source
    if topic is None or changelog_end > 0:
        return
    partition = TopicPartition(topic, task.id.partition)
    committed = task.inputs[partition].committed
    if committed is not None and committed > starts[partition]:
        unneeded = "until now no operator needed the rows, so that no store kept them"
        moved = (
            "so far the topic itself was the changelog. It no longer is because its cleanup.policy or retention "
            "was changed, or on_error= or own_changelog= of the table; go back to what it was"
        )
        if not known_marks:
            # The topology had no store so far, or a version without marks ran it.
            why = f"either {unneeded}; or the changelog was the topic, of which its settings no longer allow it"
        else:
            why = moved if store in known_marks else unneeded
        raise TaskCorrupted(
            f"task {task.id}: topic {topic!r} is processed up to offset {committed}, but the changelog of its "
            f"store {store!r} is empty: {why}. To read all rows again, start over with 'streamstate reset'"
        )


def recreated_changelog(task: Task, store: str, changelog: TopicPartition, group: str) -> TaskCorrupted:
    """Return the error of a changelog that was deleted and created again under committed offsets."""
    return TaskCorrupted(
        f"task {task.id}: the changelog of store {store!r}, topic {changelog.topic!r}, was deleted and created "
        f"again since the group's offsets were committed: what was made of the input up to there is gone. To start "
        f"over from the input, run 'streamstate reset' for this application. To go on with the changelog as it is, "
        f"have the offsets committed anew: kafka-consumer-groups.sh --group {group} --all-topics --reset-offsets "
        f"--to-current --execute"
    )
