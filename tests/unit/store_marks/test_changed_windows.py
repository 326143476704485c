"""Windows under another grace, and indexes that are missing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import windows
from streamstate.engine.settings import WorkerSettings
from tests.unit.application_support import GROUP, START_MS, Run
from tests.unit.store_marks.support import SECOND, deploy, mark_in_changelog_newest, out, windowed

KINDS: dict[str, Callable[..., Any]] = {
    "tumbling": lambda grace: windows.tumbling(10 * SECOND, grace=grace),
    "session": lambda grace: windows.session(10 * SECOND, grace=grace),
    "sliding": lambda grace: windows.sliding(10 * SECOND, grace=grace),
}


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_had_closed_stays_closed_under_a_longer_grace(kind: str, local: bool) -> None:
    of = KINDS[kind]
    run = Run(windowed(of(timedelta(0))))
    base = START_MS - START_MS % 10_000 + 60_000
    for at in (0, 1_000, 45_000):
        run.send(b"x", timestamp=base + at)
    run.ticks()
    deploy(run, windowed(of(timedelta(hours=1))), local=local)
    before = len(out(run))
    # Late under the grace of before: its window may be gone, and must not begin at one again.
    run.send(b"x", timestamp=base + 2_000)
    run.ticks(8)
    assert out(run)[before:] == []
    assert run.worker.status().dropped == 1
    run.send(b"x", timestamp=base + 44_000)
    run.ticks(8)
    assert out(run)[before:] != []


@pytest.mark.parametrize("kind", KINDS)
def test_windows_that_a_shorter_grace_closes_are_sent(kind: str) -> None:
    of = KINDS[kind]
    run = Run(windowed(of(timedelta(hours=1)), "close"))
    base = START_MS - START_MS % 10_000 + 60_000
    for at in (0, 45_000):
        run.send(b"x", timestamp=base + at)
    run.ticks()
    assert out(run) == []
    deploy(run, windowed(of(timedelta(0)), "close"), local=False)
    run.send(b"x", timestamp=base + 45_001)
    run.ticks(8)
    first = base - 10_000 if kind == "sliding" else base
    assert out(run)[0] == f"{first - START_MS}:1"


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_commits_before_the_time_moves_do_not_delete_what_a_shorter_grace_closes(kind: str, local: bool) -> None:
    """By the new retention they have expired; they are sent with the first record that moves the time."""
    of, hour = KINDS[kind], 3_600_000
    run = Run(windowed(of(timedelta(hours=10)), "close"))
    base = START_MS - START_MS % hour - 20 * hour
    for at in (0, 9 * hour):
        run.send(b"x", timestamp=base + at)
    run.ticks()
    for grace in (timedelta(hours=2), timedelta(0)):
        deploy(run, windowed(of(grace), "close"), local=local)
        run.send(b"x", key=b"other", timestamp=base + 9 * hour)
        run.ticks(8)
    deploy(run, windowed(of(timedelta(0)), "close"), local=local)
    run.send(b"x", key=b"other", timestamp=base + 9 * hour)
    run.ticks(8)
    assert out(run) == []
    run.send(b"x", timestamp=base + 10 * hour)
    run.ticks(8)
    first = base - 10_000 if kind == "sliding" else base
    assert out(run)[0] == f"{first - START_MS}:1"


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("kind", ["session", "sliding"])
def test_a_missing_index_is_built_once(kind: str, local: bool) -> None:
    of = KINDS[kind](timedelta(0))
    run = Run(windowed(of))
    base = START_MS - START_MS % 10_000 + 60_000
    run.send(b"x", b"x", timestamp=base)
    run.ticks()
    deploy(run, windowed(of, "close"), local=local)
    before = len(out(run))
    run.send(b"x", key=b"other", timestamp=base + 1)
    run.ticks(8)
    assert mark_in_changelog_newest(run, "w").index == "kept"
    run.send(b"x", key=b"other", timestamp=base + 60_000)
    run.ticks(8)
    first = base - 10_000 if kind == "sliding" else base
    assert f"{first - START_MS}:2" in out(run)[before:]
    # And back: what is left of the index is neither read nor taken for windows.
    deploy(run, windowed(of, "update"), local=local)
    run.send(b"x", timestamp=base + 60_001)
    run.ticks(8)
    assert mark_in_changelog_newest(run, "w").index == "stale"


def test_stream_time_and_caches_stay_where_operators_are_compiled_anew() -> None:
    run = Run(windowed(windows.session(SECOND)))
    run.send(b"x", timestamp=START_MS + 7_000)
    run.ticks()
    deploy(run, windowed(windows.session(SECOND, grace=timedelta(hours=1))), local=False)
    run.ticks(8)
    [task] = run.worker.assignment.tasks.values()
    assert task.stores["w"].spec.segments != run.app.graph.stores["w"].segments, "nothing was compiled anew"
    assert task.context.stream_time == START_MS + 7_000
    assert task.stores["w"].cache_bytes == WorkerSettings(GROUP).cache_bytes
