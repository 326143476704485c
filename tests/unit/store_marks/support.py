"""Topologies and their marks, for the tests of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamstate import Topology, aggregates, serde
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.store_marks import MARK_KEY, StoreMark, mark_fact
from streamstate.testing.memory_broker.application import MemoryApplication
from streamstate.windows import SessionWindows, SlidingWindows, TimeWindows
from tests.unit.application_support import GROUP, START_MS, Run

TEXT, JSON = serde.string(), serde.json()
SECOND = timedelta(seconds=1)
METADATA = f"{GROUP}-metadata"


def counting(value: serde.Serde[Any] = TEXT) -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=value)
    stream.group_by_key().count(store="c").to_stream().to("out")
    return topology


def folding(**named: aggregates.Aggregate) -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=JSON)
    stream.group_by_key().aggregate(**named, store="a").to_stream().to("out", value=JSON)  # type: ignore[arg-type]
    return topology


def windowed(of: TimeWindows | SlidingWindows | SessionWindows, emit: Any = "update") -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    counts = stream.group_by_key().windowed_by(of).count(store="w", emit=emit)  # type: ignore[arg-type]
    counts.to_stream().map(lambda at, n: (at.key, f"{at.start - START_MS}:{n}")).to("out", key=TEXT, value=TEXT)
    return topology


def deploy(run: Run, topology: Topology, *, local: bool = True) -> None:
    """End the workers in order, and start the next with another topology."""
    for name in list(run.workers):
        run.workers.pop(name).close()
    disks = run.app.disks
    run.app = MemoryApplication(topology.build(), run.broker, run.clock, WorkerSettings(GROUP))
    if local:
        run.app.disks.update(disks)


def mark_in_changelog(run: Run, store: str) -> StoreMark:
    [text] = [r.value() for r in run.broker.read(f"{GROUP}-{store}-changelog", marks=True) if r.key() == MARK_KEY]
    assert text is not None
    return StoreMark.parsed(store, text.decode())


def mark_in_metadata(run: Run, store: str) -> StoreMark:
    newest = {record.key(): record.value() for record in run.broker.read(METADATA)}
    return StoreMark.parsed(store, (newest[f"store:{store}/0".encode()] or b"").decode())


def mark_on_disk(run: Run, store: str) -> StoreMark:
    [backend] = run.app.disks["w"].backends.values()
    return StoreMark.parsed(store, backend.facts()[mark_fact(store)])


def out(run: Run) -> list[str]:
    return [(value or b"").decode() for _, value in run.out()]


def mark_in_changelog_newest(run: Run, store: str) -> StoreMark:
    marks = [r.value() for r in run.broker.read(f"{GROUP}-{store}-changelog", marks=True) if r.key() == MARK_KEY]
    return StoreMark.parsed(store, (marks[-1] or b"").decode())


def marks_in_metadata(run: Run, store: str) -> list[StoreMark]:
    newest = {record.key(): record.value() or b"" for record in run.broker.read(METADATA)}
    return [StoreMark.parsed(store, text.decode()) for _, text in sorted(newest.items())]


def deploy_beside(run: Run, topology: Topology, name: str) -> None:
    """Start one more worker, of this topology."""
    disks = run.app.disks
    run.app = MemoryApplication(topology.build(), run.broker, run.clock, WorkerSettings(GROUP))
    run.app.disks.update(disks)
    run.start(name)
