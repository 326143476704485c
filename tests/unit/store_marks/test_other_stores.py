"""Stores without a changelog of their own, and stores without a mark."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from streamstate import Processor, Topology, stores
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.store_layout import OLD_MARK_KEY
from streamstate.errors import TopologyError
from streamstate.state.entry_format import VERSION, pack_header
from streamstate.testing.memory_broker.application import MemoryApplication
from tests.unit.application_support import GROUP, Run
from tests.unit.store_marks.support import JSON, TEXT, deploy, mark_in_changelog, mark_on_disk, out

# -- stores without a changelog of their own ------------------------------------------------------------------


def test_a_store_without_a_changelog_has_its_mark_on_the_disk() -> None:
    def of(value: Any) -> Topology:
        return topology_that_reads(stores.key_value("kept", key=TEXT, value=value, changelog=False))

    run = Run(of(TEXT))
    run.send(b"x")
    run.ticks()
    assert mark_on_disk(run, "kept").changelog == "none"
    with pytest.raises(TopologyError, match="values were written by the serde 'string', not by 'json'"):
        deploy(run, of(JSON))


def rows(value: Any) -> Topology:
    topology = Topology("t")
    table = topology.table("rows", key=TEXT, value=value, store="rows")
    topology.stream("in", key=TEXT, value=TEXT).left_join(table, lambda one, row: f"{row!r}").to("out", value=TEXT)
    return topology


def test_rows_of_a_topic_are_made_anew_under_another_serde(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(rows(TEXT), {"in": 1, "rows": 1}, compacted="rows", eager=True)
    run.broker.append("rows", key=b"k", value=b"7")
    run.ticks(8)
    with caplog.at_level(logging.WARNING):
        deploy(run, rows(JSON))
        run.send(b"x")
        run.ticks(8)
    assert "store 'rows' is made anew from its topic: its values were written by the serde 'string'" in caplog.text
    assert out(run) == ["7"]


def everywhere(value: Any, on_error: Any = "continue") -> Topology:
    topology = Topology("t")
    table = topology.global_table("rows", key=TEXT, value=value, on_error=on_error)
    joined = topology.stream("in", key=TEXT, value=TEXT).left_join(
        table, lambda one, row: f"{row!r}", on=lambda k, v: k
    )
    joined.to("out", value=TEXT)
    return topology


def test_a_global_table_is_read_anew_under_another_serde() -> None:
    """What could not be decoded before, and was left out, can be now."""
    run = Run(everywhere(JSON), {"in": 1, "rows": 1}, compacted="rows")
    run.broker.append("rows", key=b"k", value=b"no JSON")
    run.send(b"x")
    run.ticks(8)
    deploy(run, everywhere(TEXT))
    run.send(b"x")
    run.ticks(8)
    assert out(run) == ["None", "'no JSON'"]


# -- without a mark ------------------------------------------------------------------------------------------


def unmarked(run: Run, entries: dict[bytes, bytes]) -> None:
    """A store of a version that did not write marks."""
    run.broker.create_topic(
        f"{GROUP}-kept-changelog", 1, {"cleanup.policy": "compact", "delete.retention.ms": "604800000"}
    )
    for key, value in entries.items():
        run.broker.append(f"{GROUP}-kept-changelog", key=key, value=pack_header(VERSION, 1) + value, partition=0)


class Look(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        self.context.forward(key, str(self.context.store("kept").get(key)))


def topology_that_reads(store: Any) -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.process(Look, stores=[store]).to("out", key=TEXT, value=TEXT)
    return topology


def made(topology: Topology, entries: dict[bytes, bytes]) -> Run:
    empty = Topology("empty")
    empty.stream("in").to("out")
    run = Run(empty)
    unmarked(run, entries)
    run.app = MemoryApplication(topology.build(), run.broker, run.clock, WorkerSettings(GROUP))
    return run


def test_a_store_without_a_mark_gets_that_of_the_topology(caplog: pytest.LogCaptureFixture) -> None:
    run = made(topology_that_reads(stores.key_value("kept", key=TEXT, value=TEXT)), {b"k": b"there"})
    run.send(b"x")
    with caplog.at_level(logging.WARNING):
        run.ticks(8)
    assert out(run) == ["there"]
    assert "was written by a version of streamstate that did not say how" in caplog.text
    assert mark_in_changelog(run, "kept").value == "string"


def test_a_store_without_a_mark_still_has_its_kind() -> None:
    run = made(topology_that_reads(stores.key_value("kept", key=TEXT, value=TEXT)), {b"k": b"x", OLD_MARK_KEY: b"list"})
    with pytest.raises(TopologyError, match="holds entries of the kind list"):
        run.ticks(8)
