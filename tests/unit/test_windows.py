"""Windowed aggregations through a topology on the in-memory broker: tumbling, hopping, unlimited windows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import Topology, TopologyError, Windowed, serde, windows
from streamstate.state.entry_format import HEADER_BYTES
from streamstate.windows.keys import TIME_KEY
from tests.unit.application_support import Run

TEXT = serde.string()
NUMBER = serde.long()


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


def counting(made: Any, **arguments: Any) -> Topology:
    """``in`` -> windowed count -> ``out``."""
    topology = Topology("t")
    table = (
        topology.stream("in", key=TEXT, value=TEXT).group_by_key().windowed_by(made).count(store="counts", **arguments)
    )
    table.to_stream().to("out")
    return topology


def send(run: Run, *records: tuple[str | None, int]) -> None:
    """Records (key, event time), in order, each in a turn of its own."""
    for key, time_ms in records:
        run.send(b"v", key=None if key is None else key.encode(), timestamp=time_ms)


def results(run: Run, size_ms: int | None, topic: str = "out") -> list[tuple[str, int, int, int | None, int]]:
    """(key, start, end, value, timestamp) of a topic."""
    keys = windows.time_windowed(TEXT, None if size_ms is None else ms(size_ms))
    found = []
    for record in run.broker.read(topic):
        windowed = keys.deserialize(record.key())
        value = None if record.value() is None else NUMBER.deserialize(record.value())
        found.append((*windowed, value, record.timestamp()[1]))
    return found


def test_a_tumbling_count_sends_every_update() -> None:
    run = Run(counting(windows.tumbling(ms(10), grace=ms(5))))
    send(run, ("a", 1), ("b", 9), ("a", 3), ("a", 10), ("a", 2))
    run.ticks()
    assert results(run, 10) == [
        ("a", 0, 10, 1, 1),
        ("b", 0, 10, 1, 9),
        ("a", 0, 10, 2, 3),
        ("a", 10, 20, 1, 10),
        ("a", 0, 10, 3, 3),
    ]


def test_a_record_is_late_when_stream_time_has_reached_its_windows_end_and_grace() -> None:
    run = Run(counting(windows.tumbling(ms(10), grace=ms(5))))
    send(run, ("a", 1), ("b", 14), ("a", 2), ("b", 15), ("a", 3))
    run.ticks()
    assert [row for row in results(run, 10) if row[0] == "a"] == [("a", 0, 10, 1, 1), ("a", 0, 10, 2, 2)]
    [task] = run.worker.assignment.tasks.values()
    assert task.context.late == task.context.dropped == 1


def test_hopping_windows_overlap_and_never_start_before_1970() -> None:
    run = Run(counting(windows.hopping(ms(10), ms(5), grace=ms(100))))
    send(run, ("a", 3), ("a", 12), ("a", 7))
    run.ticks()
    assert results(run, 10) == [
        ("a", 0, 10, 1, 3),
        ("a", 5, 15, 1, 12),
        ("a", 10, 20, 1, 12),
        ("a", 0, 10, 2, 7),
        ("a", 5, 15, 2, 12),
    ]


def test_an_unlimited_window_takes_all_from_its_start() -> None:
    run = Run(counting(windows.unlimited(start_ms=5)))
    send(run, ("a", 4), ("a", 5), ("a", 10**12), ("a", 6))
    run.ticks()
    assert results(run, None) == [
        ("a", 5, windows.FOREVER_MS, 1, 5),
        ("a", 5, windows.FOREVER_MS, 2, 10**12),
        ("a", 5, windows.FOREVER_MS, 3, 10**12),
    ]


def test_null_keys_and_values_are_left_out_and_do_not_move_time() -> None:
    run = Run(counting(windows.tumbling(ms(10))))
    send(run, (None, 1000))
    run.send(None, key=b"a", timestamp=1000)
    send(run, ("a", 1))
    run.ticks()
    assert results(run, 10) == [("a", 0, 10, 1, 1)]


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("keep_disk", [True, False])
def test_what_was_late_stays_late_after_a_restart(close: bool, keep_disk: bool) -> None:
    run = Run(counting(windows.tumbling(ms(10))))
    send(run, ("a", 1), ("a", 25))
    run.ticks()
    if not keep_disk:
        run.app.disks.clear()
    run.restart(close=close)
    send(run, ("a", 2), ("a", 26))
    run.ticks(20, step_ms=1000)
    assert results(run, 10) == [("a", 0, 10, 1, 1), ("a", 20, 30, 1, 25), ("a", 20, 30, 2, 26)]


def test_expired_windows_leave_the_store_and_get_tombstones() -> None:
    run = Run(counting(windows.tumbling(ms(10), grace=ms(5))))
    send(run, ("a", 1), ("b", 11))
    run.ticks()
    send(run, ("a", 25))
    run.ticks()
    [disk] = run.app.disks.values()
    [backend] = disk.backends.values()
    entries = dict(backend.scan("counts", None, None, False))
    # At 25 the window [0, 10) is over its grace, [10, 20) is just that too, [20, 30) is open.
    starts = sorted(key[7] for key in entries if key != TIME_KEY)
    assert starts == [20]
    changelog = {record.key(): record.value() for record in run.broker.read("app-counts-changelog")}
    assert {key: value for key, value in changelog.items() if value is not None} == entries
    assert sum(value is None for value in changelog.values()) == 2


def test_a_window_that_comes_and_goes_between_two_commits_is_never_written() -> None:
    run = Run(counting(windows.tumbling(ms(10))))
    send(run, *[("a", 10 * number) for number in range(50)])
    run.ticks()
    assert len(results(run, 10)) == 50
    written = [record.key() for record in run.broker.read("app-counts-changelog")]
    # A few commits, and in each the newest window, the time, and a tombstone for the newest window before it.
    assert len(written) < 15


def test_retention_keeps_windows_longer_but_not_open() -> None:
    run = Run(counting(windows.tumbling(ms(10)), retention=ms(1000)))
    send(run, ("a", 1), ("a", 500), ("a", 2))
    run.ticks()
    assert len(results(run, 10)) == 2
    state = {key: value for key, value in run.state("counts").items() if key != TIME_KEY}
    assert len(state) == 2


def test_the_time_is_that_of_the_operator_not_of_the_task() -> None:
    topology = Topology("t")
    kept = topology.stream("in", key=TEXT, value=TEXT).filter(lambda key, value: key == "a")
    kept.group_by_key().windowed_by(windows.tumbling(ms(10))).count(store="counts").to_stream().to("out")
    run = Run(topology)
    send(run, ("a", 1), ("b", 1000), ("a", 2))
    run.ticks()
    assert [row[3] for row in results(run, 10)] == [1, 2]


def test_a_failed_record_takes_its_time_back() -> None:
    topology = Topology("t")
    source = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    table = source.group_by_key().windowed_by(windows.tumbling(ms(10))).count(store="counts")
    table.to_stream().peek(lambda windowed, count: 1 // (windowed.key != "bad")).to("out")
    run = Run(topology)
    send(run, ("a", 1), ("bad", 1000), ("a", 2))
    run.ticks()
    assert [row[3] for row in results(run, 10)] == [1, 2]


def test_entries_are_stored_with_the_time_of_their_result() -> None:
    run = Run(counting(windows.tumbling(ms(10))))
    send(run, ("a", 7), ("a", 3))
    run.ticks()
    [record] = [record for record in run.broker.read("app-counts-changelog") if record.key() != TIME_KEY]
    assert record.value()[:HEADER_BYTES] == b"\x01" + (7).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: windows.tumbling(ms(0)), "at least 1 ms"),
        (lambda: windows.tumbling(timedelta(microseconds=1500)), "whole milliseconds"),
        (lambda: windows.tumbling(10), "timedelta"),  # type: ignore[arg-type]
        (lambda: windows.hopping(ms(10), ms(11)), "more than their size"),
        (lambda: windows.tumbling(ms(1), grace=ms(-1)), "at least 0 ms"),
        (lambda: windows.join(), "either one duration"),
        (lambda: windows.join(ms(1), before=ms(1)), "either one duration"),
        (lambda: windows.unlimited(start_ms=-1), "since 1970"),
        (lambda: counting(windows.tumbling(ms(10)), emit="never"), "emit='update'"),
        (lambda: counting(windows.unlimited(), emit="close"), "never close"),
        (lambda: counting(windows.tumbling(ms(10)), retention=ms(9)), "at least 10 ms"),
        (lambda: counting(windows.tumbling(ms(10)), idle=ms(9)), "emit='close'"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_fix(make: Any, said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        make()


def test_windowed_is_a_plain_hashable_tuple() -> None:
    key, start, end = Windowed("a", 1, 2)
    assert {Windowed("a", 1, 2): 3}[Windowed(key, start, end)] == 3
