"""The hand-written loops have the engine's client settings, as the page says."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from benchmarks import loops
from benchmarks.job import Job
from benchmarks.loops import consumer_properties, producer_properties, wholesale_properties
from streamstate.app import application
from streamstate.kafka.consumer import READER_DEFAULTS, READER_RULES, RESTORE_DEFAULTS
from streamstate.kafka.producer import DEFAULTS

JOB = Job("count-update", "127.0.0.1:9092", "app", {}, "out", 1_000, "")
# What a loop cannot have as the engine has it, or has no use for: a group that begins anew must know where, and a loop
# does not outlive a minute.
NOT_THEIRS = {"auto.offset.reset", "enable.partition.eof", "topic.metadata.refresh.interval.ms"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (consumer_properties(JOB), READER_DEFAULTS | READER_RULES),
        (wholesale_properties(JOB), RESTORE_DEFAULTS | READER_RULES),
        (producer_properties(JOB), DEFAULTS),
    ],
    ids=["reading", "wholesale", "writing"],
)
def test_the_loops_have_the_engines_settings(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    shared = ours.keys() - NOT_THEIRS
    assert {name: theirs.get(name) for name in shared} == {name: ours[name] for name in shared}


def test_the_loops_have_the_engines_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *given: seen.append(given))
    loops.collect_rarely()
    engine = Path(application.__file__).read_text()
    assert [f"gc.set_threshold({', '.join(f'{number:_}' for number in given)})" in engine for given in seen] == [True]
