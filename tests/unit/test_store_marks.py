"""Every store remembers what it is, on disk and in Kafka, and what a topology may change about it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import Processor, Topology, aggregates, serde, stores, windows
from streamstate.engine.assign.metadata_topic import topology_mark
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.task.store_layout import OLD_MARK_KEY
from streamstate.engine.task.store_marks import MARK_KEY, StoreMark, mark_fact
from streamstate.errors import ProcessingError, TaskCorrupted, TopologyError
from streamstate.state.entry_format import VERSION, pack_header
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


# -- what goes on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False])
def test_aggregates_that_stay_keep_their_state(local: bool, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(folding(n=aggregates.count(), total=aggregates.sum("x")))
    run.send(b'{"x":5}', b'{"x":7}')
    run.ticks()
    with caplog.at_level(logging.WARNING):
        deploy(run, folding(a_new=aggregates.max("x"), n=aggregates.count()), local=local)
    assert "ready aggregates a_new are new" in caplog.text
    assert "ready aggregates total are gone" in caplog.text
    run.send(b'{"x":3}')
    run.ticks()
    assert json.loads(out(run)[-1]) == {"a_new": 3, "n": 3}
    # What is back starts anew, and what stayed is still there; also for a key that saw nothing of it all.
    run.send(b'{"x":1}', key=b"other")
    deploy(run, folding(n=aggregates.count(), total=aggregates.sum("x")), local=local)
    run.send(b'{"x":10}')
    run.ticks(8)
    assert json.loads(out(run)[-1]) == {"n": 4, "total": 10}
    assert len(mark_in_changelog_newest(run, "a").aggregates) == 3


def mark_in_changelog_newest(run: Run, store: str) -> StoreMark:
    marks = [r.value() for r in run.broker.read(f"{GROUP}-{store}-changelog", marks=True) if r.key() == MARK_KEY]
    return StoreMark.parsed(store, (marks[-1] or b"").decode())


def test_a_field_is_not_taken_for_another() -> None:
    run = Run(folding(total=aggregates.sum("x")))
    run.send(b'{"x":5}')
    run.ticks()
    with pytest.raises(TopologyError, match=r"aggregate 'total' was sum\(of='x'\), the topology says sum\(of='y'\)"):
        deploy(run, folding(total=aggregates.sum("y")))
    deploy(run, folding(total=aggregates.sum(lambda value: value["x"])))


def test_an_old_process_ends_when_a_newer_one_has_changed_its_store() -> None:
    run = Run(folding(n=aggregates.count()), {"in": 2})
    run.send(b'{"x":1}', partition=0)
    run.ticks(8)
    old = run.workers.pop("w")
    run.app = MemoryApplication(
        folding(n=aggregates.count(), m=aggregates.max("x")).build(), run.broker, run.clock, WorkerSettings(GROUP)
    )
    run.start("new")
    for _ in range(60):
        old.tick()
        run.ticks(1)
    run.send(b'{"x":4}', partition=0)
    run.send(b'{"x":4}', partition=1)
    for _ in range(60):
        old.tick()
        run.ticks(1)
    # The newer one leaves: its tasks go back, and are not taken.
    run.workers.pop("new").close()
    run.workers["old"] = old
    with pytest.raises(TopologyError, match="started later with another topology"):
        run.ticks(60)


def test_going_back_waits_for_the_newer_processes_to_stop() -> None:
    earlier, later = folding(n=aggregates.count()), folding(n=aggregates.count(), m=aggregates.max("x"))
    run = Run(earlier)
    run.send(b'{"x":1}')
    run.ticks()
    deploy(run, later)
    run.ticks(8)
    run.send(b'{"x":2}')
    run.ticks(8)
    with pytest.raises(
        TopologyError,
        match=r"ready aggregates m, n by now, and group 'app' has members that .* \(w\)",
    ):
        MemoryApplication(earlier.build(), run.broker, run.clock, WorkerSettings(GROUP))
    deploy(run, earlier)
    run.send(b'{"x":3}')
    run.ticks(8)
    assert json.loads(out(run)[-1]) == {"n": 3}


def test_all_processes_go_back() -> None:
    """Others of the same version are no reason to wait, before the tasks have committed and after."""
    earlier, later = folding(n=aggregates.count()), folding(n=aggregates.count(), m=aggregates.max("x"))
    run = Run(earlier, {"in": 2})
    run.send(b'{"x":1}', partition=0)
    run.ticks(8)
    deploy(run, later)
    run.send(b'{"x":2}', partition=0)
    run.ticks(8)
    mark = topology_mark(earlier.build())
    deploy(run, earlier)
    run.start(f"{GROUP}-1.{mark}").commits.begin = lambda *_: None  # type: ignore[method-assign]
    run.ticks(8)
    assert [len(text.aggregates) for text in marks_in_metadata(run, "a")] == [2, 2], "they have gone back already"
    deploy_beside(run, earlier, f"{GROUP}-2.{mark}")
    run.workers.pop(f"{GROUP}-1.{mark}").close(commit=False)
    run.send(b'{"x":3}', partition=0)
    run.ticks(20)
    assert [len(text.aggregates) for text in marks_in_metadata(run, "a")] == [3, 3]
    assert json.loads(out(run)[-1]) == {"n": 3}
    # Whatever the others are called: the state is that of this version by now.
    run.start("w")
    run.ticks(8)
    deploy_beside(run, earlier, f"{GROUP}-3.{mark}")
    with pytest.raises(TopologyError, match="may run with them"):
        deploy_beside(run, later, f"{GROUP}-4.{topology_mark(later.build())}")


def marks_in_metadata(run: Run, store: str) -> list[StoreMark]:
    newest = {record.key(): record.value() or b"" for record in run.broker.read(METADATA)}
    return [StoreMark.parsed(store, text.decode()) for _, text in sorted(newest.items())]


def deploy_beside(run: Run, topology: Topology, name: str) -> None:
    """Start one more worker, of this topology."""
    disks = run.app.disks
    run.app = MemoryApplication(topology.build(), run.broker, run.clock, WorkerSettings(GROUP))
    run.app.disks.update(disks)
    run.start(name)


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


# -- stores without a changelog of their own ------------------------------------------------------------------


def test_a_store_without_a_changelog_has_its_mark_on_the_disk() -> None:
    def of(value: Any) -> Topology:
        return looking(stores.key_value("kept", key=TEXT, value=value, changelog=False))

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


def looking(store: Any) -> Topology:
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
    run = made(looking(stores.key_value("kept", key=TEXT, value=TEXT)), {b"k": b"there"})
    run.send(b"x")
    with caplog.at_level(logging.WARNING):
        run.ticks(8)
    assert out(run) == ["there"]
    assert "was written by a version of streamstate that did not say how" in caplog.text
    assert mark_in_changelog(run, "kept").value == "string"


def test_a_store_without_a_mark_still_has_its_kind() -> None:
    run = made(looking(stores.key_value("kept", key=TEXT, value=TEXT)), {b"k": b"x", OLD_MARK_KEY: b"list"})
    with pytest.raises(TopologyError, match="holds entries of the kind list"):
        run.ticks(8)
