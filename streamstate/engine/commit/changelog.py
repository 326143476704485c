"""Make the changelog records of a commit, and collect the offsets that they get."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from streamstate.engine.ports import Output
from streamstate.engine.task.operator_chain import CHUNK_RECORDS
from streamstate.engine.task.task import Task, TaskId

Writes = dict[str, dict[bytes, bytes | None]]
Acknowledged = dict[tuple[TaskId, str], int]


def changelog_records(sealed: Sequence[tuple[Task, Writes]], acknowledged: Acknowledged) -> Iterator[list[Output]]:
    """Yield one record per changed key, in chunks; the last record of each store reports its offset.

    Chunks, because the records of a whole commit would be more memory than the processor's caches have.

    Args:
        sealed: the staged writes of each task's stores, encoded.
        acknowledged: filled, once the records are flushed, with the offset of the last record by task and store.
    """
    for task, writes in sealed:
        changelogs = task.changelogs()
        for store, entries in writes.items():
            changelog = changelogs.get(store)
            if changelog is None:
                continue
            topic, number = changelog
            left, items = len(entries), iter(entries.items())
            while left:
                # No timestamp: event times would be deleted by retention or refused; they are in the values.
                chunk: list[Output] = [
                    (topic, value, key, number, None, None, None) for key, value in islice(items, CHUNK_RECORDS)
                ]
                left -= len(chunk)
                if not left:
                    last = chunk[-1]
                    report = _report(acknowledged, (task.id, store))
                    chunk[-1] = (last[0], last[1], last[2], last[3], report, None, None)
                yield chunk


def positions_of(task: Task, writes: Writes, acknowledged: Acknowledged) -> dict[str, int]:
    """Return the changelog position of each store that was written: behind its last acknowledged record."""
    return {store: acknowledged[task.id, store] + 1 for store in writes if (task.id, store) in acknowledged}


def _report(
    acknowledged: dict[tuple[TaskId, str], int], store: tuple[TaskId, str]
) -> Callable[[Exception | None, int], None]:
    def delivered(error: Exception | None, offset: int) -> None:
        # A refused record fails the transaction by itself, and has no offset.
        if error is None:
            acknowledged[store] = offset

    return delivered
