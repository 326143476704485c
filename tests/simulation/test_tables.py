"""Tables under faults: rows restored from their own topic, joins, groups, global tables.

What each step of the commit and of the restore of these leaves, when the process dies right behind it:

==========================================  ================================================================
offsets of the table's topic are committed  rows behind the offset: replayed from the topic, up to the offset
rows and their offset are applied           nothing to mend: the two are one batch
the restore of rows is under way            a position, rows behind it too: it goes on from there
rows of a global table are applied          nothing to mend: entries and offset are one batch
==========================================  ================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamstate.engine.assign.assignment import Assignment
from streamstate.engine.assign.global_tables import GlobalState
from streamstate.engine.assign.restore import Restoration, Restorer
from streamstate.engine.task.task import Task
from streamstate.operators.foreign_key import runtime as foreign_key
from tests.simulation.seeds import first_wrong, seeds_are_right

SEEDS = 40


@pytest.mark.parametrize("workload", ["rows", "lookups", "joins", "everywhere", "differing"])
def test_seeds(workload: str) -> None:
    seeds_are_right(workload, SEEDS)


# -- the simulation notices when a safeguard of these is missing -------------------------------------------------


def rows_beyond_what_is_processed(patch: pytest.MonkeyPatch) -> None:
    """The restore takes what it is given, also behind the committed offset."""
    original = Restorer._apply

    def apply(self: Restorer, restoration: Restoration, messages: list[Any]) -> None:
        target, restoration.target = restoration.target, 1 << 62
        try:
            original(self, restoration, messages)
        finally:
            restoration.target = target

    patch.setattr(Restorer, "_apply", apply)


def rows_up_to_the_logs_end(patch: pytest.MonkeyPatch) -> None:
    """The restore's target is the end of the topic, as if it were a changelog."""
    original = Assignment._begin_restore

    def begin(self: Assignment, task: Task, starts: Any, ends: Any, *rest: Any) -> None:
        offsets = {partition: input_.next_offset for partition, input_ in task.inputs.items()}
        for partition, input_ in task.inputs.items():
            input_.next_offset = ends[partition]
        run = self.run

        def put_back(restored: Task) -> None:
            for partition, offset in offsets.items():
                if partition in restored.inputs:
                    restored.inputs[partition].next_offset = offset
            run(restored)

        self.run = put_back  # type: ignore[method-assign]
        original(self, task, starts, ends, *rest)
        for partition, offset in offsets.items():
            task.inputs[partition].next_offset = offset

    patch.setattr(Assignment, "_begin_restore", begin)


def answers_to_whatever_was_asked(patch: pytest.MonkeyPatch) -> None:
    """An answer counts although the left row has changed since it asked."""
    patch.setattr(foreign_key, "value_hash", lambda serialize, value: None if value is None else b"h" * 16)


def global_rows_without_their_offsets(patch: pytest.MonkeyPatch) -> None:
    """Global tables count as complete before they are read."""
    original = GlobalState.poll

    def poll(self: GlobalState) -> None:
        original(self)
        self.complete = True

    patch.setattr(GlobalState, "poll", poll)


@pytest.mark.parametrize(
    ("workload", "weakening"),
    [
        ("rows", rows_up_to_the_logs_end),
        ("lookups", rows_beyond_what_is_processed),
        ("joins", answers_to_whatever_was_asked),
        ("everywhere", global_rows_without_their_offsets),
    ],
    ids=lambda item: getattr(item, "__name__", item),
)
def test_a_missing_safeguard_is_noticed(
    workload: str, weakening: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    weakening(monkeypatch)
    assert first_wrong(workload, 300) is not None, "300 runs did not notice it"
