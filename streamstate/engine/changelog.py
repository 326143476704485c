"""What a transaction writes to the changelogs, and where it ended up there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamstate.engine.ports import Output
from streamstate.engine.task import Task, TaskId

Writes = dict[str, dict[bytes, bytes | None]]
Acknowledged = dict[tuple[TaskId, str], int]


def changelog_records(sealed: Sequence[tuple[Task, Writes]], acknowledged: Acknowledged) -> list[Output]:
    """One record per changed key; the last of each store reports the offset it got.

    Args:
        sealed: what each task's stores have staged, encoded.
        acknowledged: filled, once the records are flushed, with the offset of the last record by task and store.
    """
    changes: list[Output] = []
    for task, writes in sealed:
        changelogs = task.changelogs()
        for store, entries in writes.items():
            changelog = changelogs.get(store)
            if changelog is None:
                continue
            topic, number = changelog
            # No timestamp: event times would be deleted by retention or refused; they are in the values.
            changes.extend([(topic, value, key, number, None, None, None) for key, value in entries.items()])
            last = changes[-1]
            report = _report(acknowledged, (task.id, store))
            changes[-1] = (last[0], last[1], last[2], last[3], report, None, None)
    return changes


def positions_of(task: Task, writes: Writes, acknowledged: Acknowledged) -> dict[str, int]:
    """Changelog position of each store of ``task`` that was written: behind its last acknowledged record."""
    return {store: acknowledged[task.id, store] + 1 for store in writes if (task.id, store) in acknowledged}


def _report(
    acknowledged: dict[tuple[TaskId, str], int], store: tuple[TaskId, str]
) -> Callable[[Exception | None, int], None]:
    def delivered(error: Exception | None, offset: int) -> None:
        # A refused record fails the transaction by itself; its offset is of no use.
        if error is None:
            acknowledged[store] = offset

    return delivered
