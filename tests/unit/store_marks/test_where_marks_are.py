"""Where marks are written, and what is refused."""

from __future__ import annotations

import json
import logging

import pytest

from streamstate import Topology, aggregates, serde, windows
from streamstate.engine.task.store_marks import MARK_KEY, StoreMark
from streamstate.errors import ProcessingError, TaskCorrupted, TopologyError
from tests.unit.application_support import GROUP, START_MS, Run
from tests.unit.store_marks.support import (
    JSON,
    METADATA,
    SECOND,
    TEXT,
    counting,
    deploy,
    folding,
    mark_in_changelog,
    mark_in_changelog_newest,
    mark_in_metadata,
    mark_on_disk,
    windowed,
)

# -- where it is ---------------------------------------------------------------------------------------------


def test_the_first_commit_writes_the_mark_to_all_three_places() -> None:
    run = Run(counting())
    run.send(b"x")
    run.ticks()
    mark = mark_in_changelog(run, "c")
    assert mark == mark_in_metadata(run, "c") == mark_on_disk(run, "c")
    assert (mark.content, mark.key, mark.value, mark.kind, mark.changelog) == (
        "count",
        "string",
        "long",
        "key_value",
        "own",
    )


def test_an_aborted_commit_leaves_no_mark() -> None:
    run = Run(counting())
    run.send(b"x")
    run.ticks(1)
    run.start()
    run.worker.commits.begin = lambda *_: None  # type: ignore[method-assign]
    run.ticks()
    run.worker.close(commit=False)
    assert run.broker.read(METADATA) == []


def test_tasks_that_processed_nothing_have_the_mark_too() -> None:
    """So that an empty changelog says something."""
    run = Run(counting(), {"in": 3})
    run.send(b"x", partition=1)
    run.ticks(8)
    for partition in range(3):
        keys = [record.key() for record in run.broker.read(f"{GROUP}-c-changelog", partition, marks=True)]
        assert keys == ([MARK_KEY, b"k"] if partition == 1 else [MARK_KEY])


def test_an_empty_disk_has_the_mark_after_the_restore() -> None:
    run = Run(counting())
    run.send(b"x")
    run.ticks()
    before = mark_on_disk(run, "c")
    deploy(run, counting(), local=False)
    run.ticks()
    assert mark_on_disk(run, "c") == before
    assert run.worker.status().restore.records == 1, "the mark is no entry"


def test_a_mark_survives_its_text() -> None:
    mark = StoreMark(
        "window", "x", "string", "json", "none", ((("n", ("count",)),),), 60_000, 5, 4, None, True, "kept", 7, 8
    )
    assert StoreMark.parsed("s", mark.text()) == mark


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format":2,"kind":"key_value"}', '{"format":1}'])
def test_a_mark_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(TaskCorrupted, match="store 's' has a mark that cannot be read"):
        StoreMark.parsed("s", text)


def test_what_a_newer_version_has_added_to_a_mark_is_passed_over() -> None:
    mark = StoreMark("key_value", "count", "string", "long", "own")
    assert StoreMark.parsed("s", json.dumps({**json.loads(mark.text()), "later": 1})) == mark


def test_the_key_of_the_mark_is_nobodys() -> None:
    topology = Topology("t")
    raw = serde.bytes_()
    topology.stream("in", key=raw, value=raw).group_by_key().count(store="c").to_stream().to("out")
    run = Run(topology)
    run.send(b"x", key=MARK_KEY)
    with pytest.raises(ProcessingError, match="under which its changelog has the mark"):
        run.ticks(8)


# -- what is refused -----------------------------------------------------------------------------------------


def test_another_serde_is_refused_before_the_group_is_joined() -> None:
    run = Run(folding(n=aggregates.count()))
    run.send(b'{"x":1}')
    run.ticks()
    topology = Topology("t")
    topology.stream("in", key=serde.bytes_(), value=JSON).group_by_key().aggregate(n=aggregates.count(), store="a")
    with pytest.raises(TopologyError, match=r"'a' holds .* keys were written by the serde 'string', not by 'bytes'"):
        deploy(run, topology)


def test_without_the_metadata_topic_the_changelog_refuses() -> None:
    run = Run(counting())
    run.send(b"x")
    run.ticks()
    run.broker.delete_topic(METADATA)
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).group_by_key().reduce(lambda a, b: b, store="c")
    deploy(run, topology, local=False)
    with pytest.raises(TopologyError, match="holds 'count', the topology says 'reduce'"):
        run.ticks(8)


def test_another_avro_schema_is_another_serde() -> None:
    def of(name: str) -> Topology:
        schema = {"type": "record", "name": "R", "fields": [{"name": name, "type": "string"}]}
        topology = Topology("t")
        grouped = topology.stream("in", key=TEXT, value=TEXT).group_by_key()
        grouped.aggregate(
            initializer=lambda: {name: ""}, aggregator=lambda k, v, s: {name: v}, value=serde.avro(schema), store="a"
        )
        return topology

    run = Run(of("x"))
    run.send(b"x")
    run.ticks()
    deploy(run, of("x"))
    with pytest.raises(TopologyError, match="values were written by the serde 'avro"):
        deploy(run, of("y"))


def test_a_longer_grace_would_send_final_results_again() -> None:
    run = Run(windowed(windows.tumbling(SECOND), "close"))
    run.send(b"x", timestamp=START_MS)
    run.ticks()
    deploy(run, windowed(windows.tumbling(SECOND), "close"))
    with pytest.raises(TopologyError, match=r"closed after a grace of 0 ms.* cannot become 1000 ms"):
        deploy(run, windowed(windows.tumbling(SECOND, grace=SECOND), "close"))


def test_a_metadata_topic_that_was_deleted_is_filled_again() -> None:
    run = Run(folding(n=aggregates.count()))
    run.send(b'{"x":1}')
    run.ticks()
    run.broker.delete_topic(METADATA)
    deploy(run, folding(n=aggregates.count()))
    run.send(b'{"x":1}')
    run.ticks(8)
    assert mark_in_metadata(run, "a") == mark_in_changelog_newest(run, "a")


def test_a_store_that_left_is_said(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(counting())
    run.send(b"x")
    run.ticks()
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).group_by_key().count(store="d")
    with caplog.at_level(logging.WARNING):
        deploy(run, topology)
    assert (
        "store 'c' (count) is not in the topology any more. Its state stays in topic 'app-c-changelog'" in caplog.text
    )
