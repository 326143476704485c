"""Lists, timers, windows and sessions in processors: on the driver, over crashes, on RocksDB; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamstate import (
    ProcessingError,
    Processor,
    ProcessorContext,
    Topology,
    TopologyError,
    Windowed,
    serde,
    stores,
)
from streamstate.graph.describe import describe_text
from streamstate.operators.process import timers as module
from streamstate.rocksdb.scratch import RocksDisk
from streamstate.state.spec import StoreSpec
from streamstate.testing.driver.driver import TopologyTestDriver
from tests.unit.application_support import START_MS, Run

TEXT, LONG = serde.string(), serde.long()
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
Context = ProcessorContext[Any, Any]
AsyncCall = Callable[[Context, str, str], object]


def topology_of(
    kept: list[StoreSpec], process: AsyncCall, init: Callable[[Context], object] | None = None, **options: Any
) -> Topology:
    class Made(Processor[str, str, str, str]):
        def init(self, context: Context) -> None:
            super().init(context)
            if init is not None:
                init(context)

        def process(self, key: str, value: str) -> None:
            process(self.context, key, value)

    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, **options)
    stream.process(Made, stores=kept, name="p").to("out", key=TEXT, value=TEXT)
    return topology


# -- lists, windows, sessions --------------------------------------------------------------------------------------

LISTS = [
    stores.list_("lists", key=TEXT, value=TEXT, maxlen=3),
    stores.window("windows", key=TEXT, value=LONG, size=SECOND, retention=MINUTE),
    stores.session("sessions", key=TEXT, value=LONG, retention=MINUTE),
]


def keep_all(context: Context, key: str, value: str) -> None:
    context.store("lists").append(key, value)
    second = context.timestamp // 1_000 * 1_000
    context.store("windows").put(key, len(value), second)
    context.store("windows").put("now", len(value))
    context.store("sessions").put(key, context.timestamp, context.timestamp + 500, len(value))
    context.forward(key, " ".join(context.store("lists").iterate(key)))


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_each_kind_is_kept_and_restored(durable: bool, disk: Any, tmp_path: Path) -> None:
    kept = RocksDisk(tmp_path) if durable else None
    with TopologyTestDriver(topology_of(LISTS, keep_all), disk=kept) as driver:
        for number, value in enumerate(("a", "bb", "ccc", "dddd")):
            driver.input("in").pipe("k", value, timestamp=1_250 + 700 * number)
            driver.crash(disk=disk)
        assert driver.output("out", key=TEXT, value=TEXT).values() == ["a", "a bb", "a bb ccc", "bb ccc dddd"]
        for committed in (False, True):
            assert driver.store("lists", committed=committed).get("k") == ["bb", "ccc", "dddd"]
            windows = driver.store("windows", committed=committed)
            assert list(windows.fetch("k")) == [(1_000, 2), (2_000, 3), (3_000, 4)]
            assert list(windows.fetch("k", 2_000, 2_999)) == [(2_000, 3)]
            assert list(windows.fetch("now")) == [(1_250, 1), (1_950, 2), (2_650, 3), (3_350, 4)]
            assert (Windowed("k", 2_000, 3_000), 3) in list(windows.fetch_all())
            sessions = driver.store("sessions", committed=committed)
            assert list(sessions.fetch("k", 2_500, 2_700)) == [(Windowed("k", 2_650, 3_150), 3)]
        driver.input("in").pipe("other", "x", timestamp=100_000)
        assert list(driver.store("windows").fetch("k")) == []
        assert [windowed.key for windowed, _ in driver.store("sessions").fetch_all()] == ["other"]


def test_what_is_too_old_is_not_taken() -> None:
    taken: list[tuple[bool, bool]] = []

    def process(context: Context, key: str, value: str) -> None:
        time = context.timestamp
        taken.append((context.store("windows").put(key, 1), context.store("sessions").put(key, time, time, 1)))

    with TopologyTestDriver(topology_of(LISTS, process)) as driver:
        for time in (100_000, 40_001, 40_000, 160_000):
            driver.input("in").pipe("k", "v", timestamp=time)
            driver.crash(disk="lost")
    assert taken == [(True, True), (True, True), (False, False), (True, True)]


def test_the_description_names_their_kinds() -> None:
    kept = [*LISTS, stores.timers("timers", key=TEXT), stores.timers("ticks", key=TEXT, kind="wall_clock")]
    text = describe_text(topology_of(kept, keep_all).build(), "app")
    for kind in ("list, changelog", "window, ", "session, ", "timers, changelog", "wall clock timers, "):
        assert kind in text


def test_several_partitions_are_looked_into_one_by_one() -> None:
    with TopologyTestDriver(topology_of(LISTS, keep_all), partitions=2) as driver:
        driver.input("in").pipe("k", "a", timestamp=5)
        with pytest.raises(LookupError, match=r"driver.store\('lists', partition=0\)"):
            driver.store("lists")
        assert sorted(driver.store("lists", partition=number).get("k") for number in (0, 1)) == [[], ["a"]]


@pytest.mark.parametrize("maxlen", [0, -1, 1.5])
def test_lists_that_cannot_be(maxlen: Any) -> None:
    with pytest.raises(TopologyError, match="maxlen=1 or more"):
        stores.list_("s", key=TEXT, value=TEXT, maxlen=maxlen)


# -- timers --------------------------------------------------------------------------------------------------------

TIMERS = stores.timers("timers", key=TEXT)
TICKS = stores.timers("timers", key=TEXT, kind="wall_clock")


def timed(kept: StoreSpec) -> Topology:
    """``v`` in ``key: v`` sets a timer so many ms from now; ``x`` cancels it."""
    handles: dict[str, Any] = {}

    def init(context: Context) -> None:
        def fire(key: str, time_ms: int) -> None:
            assert context.timestamp == time_ms
            assert (context.topic, context.headers) == (None, [])
            context.forward(key, f"{time_ms} of {context.stream_time}")

        handles[context.task_id] = context.timers("timers", fire)

    def process(context: Context, key: str, value: str) -> None:
        timers = handles[context.task_id]
        if value == "x":
            context.forward(key, str(timers.cancel(key)))
        else:
            now = context.timestamp if kept is TIMERS else context.now_ms()
            timers.set(key, now + int(value))

    return topology_of([kept], process, init)


@pytest.mark.parametrize("disk", ["kept", "lost"])
@pytest.mark.parametrize("crashes", [False, True])
def test_timers_in_stream_time(disk: Any, crashes: bool) -> None:
    with TopologyTestDriver(timed(TIMERS)) as driver:

        def pipe(key: str, value: str, time: int) -> None:
            driver.input("in").pipe(key, value, timestamp=time)
            if crashes:
                driver.crash(disk=disk)

        pipe("a", "50", 1_000)
        pipe("b", "20", 1_000)
        pipe("c", "30", 1_000)
        pipe("c", "90", 1_000)  # moved
        pipe("d", "30", 1_001)
        assert list(driver.store("timers").all()) == [("b", 1_020), ("d", 1_031), ("a", 1_050), ("c", 1_090)]
        pipe("d", "x", 1_001)
        pipe("d", "x", 1_001)
        pipe("e", "0", 1_060)
        # For a time that has come: when stream time next moves.
        pipe("f", "-900", 1_059)
        assert list(driver.store("timers").all()) == [("f", 159), ("c", 1_090)]
        pipe("g", "500", 1_090)
        records = driver.output("out", key=TEXT, value=TEXT).read_all()
        assert [(r.key, r.value, r.timestamp) for r in records] == [
            ("d", "True", 1_001),
            ("d", "False", 1_001),
            ("b", "1020 of 1060", 1_020),
            ("a", "1050 of 1060", 1_050),
            ("e", "1060 of 1060", 1_060),
            ("f", "159 of 1090", 159),
            ("c", "1090 of 1090", 1_090),
        ]


def test_timers_by_the_wall_clock_also_those_that_fell_due_while_nothing_ran() -> None:
    with TopologyTestDriver(timed(TICKS), start=START_MS) as driver:
        for key, value in (("a", "2000"), ("b", "1000"), ("c", "9000")):
            driver.input("in").pipe(key, value, timestamp=5)
        told = driver.output("out", key=TEXT, value=TEXT)
        driver.advance(timedelta(milliseconds=999))
        assert told.values() == []
        driver.advance(timedelta(milliseconds=1))
        assert told.values() == [f"{START_MS + 1_000} of 5"]
        driver.clock.advance(3_000)
        driver.crash(disk="lost")
        driver.advance(timedelta(0))
        assert told.values() == [f"{START_MS + 2_000} of 5"]
        assert list(driver.store("timers").all()) == [("c", START_MS + 9_000)]


def test_many_wall_clock_timers_are_spread_over_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALLED_PER_TURN", 2)
    run = Run(timed(TICKS))
    run.send(*((key, b"100") for key in (b"a", b"b", b"c", b"d", b"e")))
    run.ticks(1)
    sent = []
    for _ in range(6):
        run.ticks(1)
        sent.append(run.worker.status().sent)
    assert list(dict.fromkeys(count for count in sent if count)) == [2, 4, 5]


def test_a_chain_of_timers_is_caught_up_with_in_order() -> None:
    handles: dict[str, Any] = {}

    def init(context: Context) -> None:
        def fire(key: str, time_ms: int) -> None:
            context.forward(key, str(time_ms))
            handles["t"].set(key, time_ms + 10)

        handles["t"] = context.timers("timers", fire)

    def process(context: Context, key: str, value: str) -> None:
        if value:
            handles["t"].set(key, int(value))

    with TopologyTestDriver(topology_of([TIMERS], process, init)) as driver:
        for value, time in (("10", 0), ("", 35)):
            driver.input("in").pipe("k", value, timestamp=time)
        assert driver.output("out", key=TEXT, value=TEXT).values() == ["10", "20", "30"]
        assert list(driver.store("timers").all()) == [("k", 40)]


def test_what_a_failed_record_set_or_cancelled_is_taken_back() -> None:
    handles: dict[str, Any] = {}

    def init(context: Context) -> None:
        handles["t"] = context.timers("timers", lambda key, time_ms: context.forward(key, str(time_ms)))

    def process(context: Context, key: str, value: str) -> None:
        if value == "fail":
            handles["t"].cancel("a")
            handles["t"].set("b", 10)
            raise ValueError("no")
        handles["t"].set(key, int(value))

    with TopologyTestDriver(topology_of([TIMERS], process, init, on_error="continue")) as driver:
        for key, value, time in (("a", "20", 0), ("b", "fail", 5), ("c", "90", 30)):
            driver.input("in").pipe(key, value, timestamp=time)
        assert driver.output("out", key=TEXT, value=TEXT).values() == ["20"]


def test_a_failing_timer_names_its_processor() -> None:
    def init(context: Context) -> None:
        context.timers("timers", lambda key, time_ms: 1 // 0).set("k", 5)

    driver = TopologyTestDriver(topology_of([TIMERS], lambda context, key, value: None, init))
    with pytest.raises(ProcessingError, match=r"operator 'p' failed in a timer.*ZeroDivisionError"):
        driver.input("in").pipe("k", "v", timestamp=5)
    driver.close()


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (lambda c: c.store("timers"), r"holds timers: context.timers\('timers', callback\)"),
        (lambda c: c.timers("lists", print), "asks for timers 'lists', which it was not given"),
        (lambda c: c.timers("other", print), "asks for timers 'other', which it was not given"),
        (lambda c: (c.timers("timers", print), c.timers("timers", print)), "'p' has already: give each its own"),
    ],
)
def test_timers_that_cannot_be(init: Callable[[Context], object], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        TopologyTestDriver(topology_of([TIMERS, LISTS[0]], lambda context, key, value: None, init))


def test_a_time_that_is_none() -> None:
    def init(context: Context) -> None:
        context.timers("timers", print).set("k", 1.5)  # type: ignore[arg-type]

    with pytest.raises(ProcessingError, match=r"the time of a timer is in ms since 1970, an int, not float: 1\.5"):
        TopologyTestDriver(topology_of([TIMERS], lambda context, key, value: None, init))


def test_kinds_of_timers_that_cannot_be() -> None:
    with pytest.raises(TopologyError, match="the kind of timers 's' is 'stream_time' or 'wall_clock', not 'x'"):
        stores.timers("s", key=TEXT, kind="x")  # type: ignore[arg-type]
