"""Processors: stores, forwarding, what a context shows, schedules, also over a restart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import Processor, ProcessorContext, Topology, TopologyError, serde, stores
from tests.unit.application_support import START_MS, Run

TEXT = serde.string()
NUMBER = serde.long()
Context = ProcessorContext[Any, Any]
Function = Callable[[Context, Any, Any], object]


def processor(
    function: Function, init: Callable[[Context], object] | None = None
) -> Callable[[], Processor[Any, Any, Any, Any]]:
    class Made(Processor[Any, Any, Any, Any]):
        def init(self, context: Context) -> None:
            super().init(context)
            if init is not None:
                init(context)

        def process(self, key: Any, value: Any) -> None:
            function(self.context, key, value)

    return Made


def topology_of(function: Function, init: Callable[[Context], object] | None = None, **options: Any) -> Topology:
    topology = Topology("t")
    kept = [
        stores.key_value("numbers", key=TEXT, value=NUMBER),
        stores.key_value("documents", key=TEXT, value=serde.json()),
    ]
    stream = topology.stream("in", key=TEXT, value=TEXT, **options)
    stream.process(processor(function, init), stores=kept, name="p").to("out", key=TEXT, value=TEXT)
    return topology


def test_a_processor_forwards_nothing_once_or_often() -> None:
    def process(context: Context, key: str, value: str) -> None:
        for part in value.split():
            context.forward(part, value)

    run = Run(topology_of(process))
    run.send(b"a b", b"", b"c")
    run.ticks()
    assert run.out() == [(b"a", b"a b"), (b"b", b"a b"), (b"c", b"c")]


def test_the_context_shows_the_record_in_hand() -> None:
    seen: list[tuple[Any, ...]] = []

    def process(context: Context, key: str, value: str) -> None:
        shown = (context.application_id, context.task_id, context.topic, context.partition, context.offset)
        seen.append((*shown, context.timestamp, context.stream_time, context.headers, context.now_ms()))
        context.headers.append(("not", b"kept"))

    run = Run(topology_of(process), {"in": 2})
    run.send(b"a", partition=1, timestamp=50, headers=[("h", b"1")])
    run.send(b"a", partition=1, timestamp=20)
    run.ticks(2, step_ms=7)
    now = START_MS + 14
    assert seen == [
        ("app", "in_1", "in", 1, 0, 50, 50, [("h", b"1")], now),
        ("app", "in_1", "in", 1, 1, 20, 50, [], now),
    ]


def test_a_forwarded_record_has_the_time_and_headers_of_its_cause_unless_told() -> None:
    def process(context: Context, key: str, value: str) -> None:
        context.forward(key, "same")
        context.forward(key, "new", timestamp=99, headers=[("n", b"2")])
        context.forward(key, "none", headers=[])
        context.forward(key, "same again")

    run = Run(topology_of(process))
    run.send(b"a", timestamp=50, headers=[("h", b"1")])
    run.ticks()
    assert [(r.value(), r.timestamp()[1], r.headers()) for r in run.broker.read("out")] == [
        (b"same", 50, [("h", b"1")]),
        (b"new", 99, [("n", b"2")]),
        (b"none", 50, None),
        (b"same again", 50, [("h", b"1")]),
    ]


def test_a_list_of_headers_may_be_used_again() -> None:
    def process(context: Context, key: str, value: str) -> None:
        headers: list[tuple[str, bytes | None]] = []
        for number in b"12":
            headers.append(("n", bytes([number])))
            context.forward(key, value, headers=headers)
        headers.clear()

    run = Run(topology_of(process))
    run.send(b"a")
    run.ticks()
    assert [r.headers() for r in run.broker.read("out")] == [[("n", b"1")], [("n", b"1"), ("n", b"2")]]


def test_times_and_headers_reach_processors_further_down_and_do_not_come_back() -> None:
    seen: list[tuple[str, int, Any]] = []

    def first(context: Context, key: str, value: str) -> None:
        context.forward(key, value, timestamp=7, headers=[("n", b"2")])
        seen.append(("first", context.timestamp, context.headers))

    def second(context: Context, key: str, value: str) -> None:
        seen.append(("second", context.timestamp, context.headers))

    topology = Topology("t")
    topology.stream("in").process(processor(first)).process(processor(second))
    run = Run(topology)
    run.send(b"a", timestamp=50, headers=[("h", b"1")])
    run.ticks()
    assert seen == [("second", 7, [("n", b"2")]), ("first", 50, [("h", b"1")])]


def test_stores_see_what_was_written_committed_or_not_and_survive_a_restart() -> None:
    def process(context: Context, key: str, value: str) -> None:
        numbers, documents = context.store("numbers"), context.store("documents")
        before = numbers.get(key) or 0
        numbers.put(key, before + len(value))
        document = documents.get(key) or {"seen": []}
        document["seen"].append(value)
        documents.put(key, document)
        document["seen"].append("not stored")
        context.forward(key, f"{numbers.get(key)} {documents.get(key)['seen']}")

    run = Run(topology_of(process))
    run.send(b"a", b"bb")
    run.ticks()
    run.send(b"c")
    run.ticks()
    run.restart(close=False)
    run.send(b"dd")
    run.ticks()
    assert [value for _, value in run.out()] == [
        b"1 ['a']",
        b"3 ['a', 'bb']",
        b"4 ['a', 'bb', 'c']",
        b"6 ['a', 'bb', 'c', 'dd']",
    ]


def test_deleting_leaves_a_tombstone_in_the_changelog() -> None:
    def process(context: Context, key: str, value: str) -> None:
        if value == "x":
            context.store("numbers").delete(key)
        else:
            context.store("numbers").put(key, 1)

    run = Run(topology_of(process))
    run.send((b"a", b"1"), (b"b", b"1"))
    run.ticks()
    run.send((b"a", b"x"), (b"new", b"1"), (b"new", b"x"))
    run.ticks()
    assert run.state("numbers") == {b"b": NUMBER.serialize(1)}
    run.restart()
    seen: list[Any] = []
    run.workers["w"].tick()
    for task in run.workers["w"].assignment.tasks.values():
        seen += [key for key, _ in task.stores["numbers"].scan(None, None)] if task.stores else []
    assert seen == [b"b"]


def test_a_store_that_was_not_listed() -> None:
    run = Run(topology_of(lambda context, key, value: context.store("other")))
    run.send(b"a")
    with pytest.raises(Exception, match="asks for store 'other', which it was not given"):
        run.ticks()


def test_a_store_that_was_not_listed_asked_for_in_init() -> None:
    run = Run(topology_of(lambda context, key, value: None, lambda context: context.store("other")))
    with pytest.raises(TopologyError, match="asks for store 'other'"):
        run.ticks()


def test_two_processors_share_a_store_in_one_task() -> None:
    topology = Topology("t")
    store = stores.key_value("numbers", key=TEXT, value=NUMBER)
    topology.add_store(store)
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.process(processor(lambda c, k, v: c.store("numbers").put(k, len(v))), stores=["numbers"])
    reader = processor(lambda c, k, v: c.forward(k, str(c.store("numbers").get(k))))
    stream.process(reader, stores=["numbers"]).to("out", key=TEXT, value=TEXT)
    run = Run(topology)
    run.send(b"abc")
    run.ticks()
    assert run.out() == [(b"k", b"3")]


def test_processors_are_made_initialised_and_closed_once_per_task() -> None:
    events: list[str] = []

    class Watched(Processor[Any, Any, Any, Any]):
        def init(self, context: Context) -> None:
            super().init(context)
            events.append(f"init {context.task_id}")

        def process(self, key: Any, value: Any) -> None:
            events.append(f"process {self.context.task_id}")

        def close(self) -> None:
            events.append(f"close {self.context.task_id}")

    topology = Topology("t")
    topology.stream("in").process(Watched)
    run = Run(topology, {"in": 2})
    run.send(b"a", partition=0)
    run.send(b"b", partition=1)
    run.ticks()
    run.workers.pop("w").close()
    for number in (0, 1):
        assert [e.split()[0] for e in events if e.endswith(f"in_{number}")] == ["init", "process", "close"]


# -- schedules -------------------------------------------------------------------------------------------------

SECOND = timedelta(seconds=1)


def scheduled(kind: Any, calls: list[Any], interval: timedelta = SECOND) -> Topology:
    def init(context: Context) -> None:
        def punctuate(time_ms: int) -> None:
            calls.append(time_ms)
            assert (context.topic, context.partition, context.offset, context.headers) == (None, None, None, [])
            assert context.timestamp == time_ms
            for key, count in context.store("numbers").all():
                context.forward(key, f"{count}@{time_ms}")
                context.store("numbers").put(key, 0)

        context.schedule(interval, kind, punctuate)

    def process(context: Context, key: str, value: str) -> None:
        context.store("numbers").put(key, (context.store("numbers").get(key) or 0) + 1)

    return topology_of(process, init)


def test_stream_time_runs_from_the_first_record_in_a_fixed_rhythm() -> None:
    calls: list[int] = []
    run = Run(scheduled("stream_time", calls))
    for time in (300, 900, 1_100, 800, 1_200, 4_700, 4_900, 5_000):
        run.send(b"v", timestamp=time)
    run.ticks()
    # Once with the first record, then at multiples of the interval; missed ones once.
    assert calls == [300, 1_100, 4_700, 5_000]
    assert [(value, time) for (_, value), time in zip(run.out(), run.times(), strict=True)] == [
        (b"1@300", 300),
        (b"2@1100", 1_100),
        (b"3@4700", 4_700),
        (b"2@5000", 5_000),
    ]


def test_stream_time_goes_on_after_a_restart() -> None:
    calls: list[int] = []
    run = Run(scheduled("stream_time", calls))
    run.send(b"v", timestamp=5_500)
    run.ticks()
    run.restart(close=False)
    # Older than what was seen before: time does not run backwards over a restart.
    run.send(b"v", timestamp=3_000)
    run.send(b"v", timestamp=5_900)
    run.ticks()
    assert calls == [5_500]
    run.send(b"v", timestamp=6_000)
    run.ticks()
    assert calls == [5_500, 6_000]
    assert run.out()[-1] == (b"k", b"3@6000")


def test_wall_clock_runs_without_records() -> None:
    calls: list[int] = []
    run = Run(scheduled("wall_clock", calls))
    run.send(b"v", timestamp=5)
    run.ticks(4, step_ms=250)
    assert calls == []
    run.ticks(1, step_ms=250)
    assert calls == [START_MS + 1_250]
    # Missed intervals are called once, and the rhythm stays.
    run.ticks(1, step_ms=3_500)
    assert calls[1:] == [START_MS + 4_750]
    run.ticks(2, step_ms=250)
    assert calls[2:] == [START_MS + 5_250]
    assert run.out()[0] == (b"k", b"1@%d" % calls[0])
    assert run.times()[0] == calls[0]


def test_a_wall_clock_schedule_starts_anew_with_the_task() -> None:
    calls: list[int] = []
    run = Run(scheduled("wall_clock", calls))
    run.ticks(3, step_ms=300)
    run.restart()
    run.ticks(4, step_ms=300)
    assert calls == []
    run.ticks(1, step_ms=300)
    assert len(calls) == 1


def test_what_a_punctuation_writes_is_committed_without_any_record() -> None:
    def init(context: Context) -> None:
        context.schedule(SECOND, "wall_clock", lambda time_ms: context.store("numbers").put("ticks", time_ms))

    run = Run(topology_of(lambda context, key, value: None, init))
    run.ticks(12, step_ms=200)
    assert run.state("numbers") == {b"ticks": NUMBER.serialize(START_MS + 2_200)}


@pytest.mark.parametrize("kind", ["stream_time", "wall_clock"])
def test_a_cancelled_schedule_is_not_called_again(kind: Any) -> None:
    calls: list[int] = []

    def init(context: Context) -> None:
        def once(time_ms: int) -> None:
            calls.append(time_ms)
            schedule.cancel()
            schedule.cancel()

        schedule = context.schedule(SECOND, kind, once)

    run = Run(topology_of(lambda context, key, value: None, init))
    for step in range(5):
        run.send(b"v", timestamp=START_MS + step * 2_000)
        run.ticks(1, step_ms=2_000)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("interval", "kind"), [(timedelta(microseconds=999), "wall_clock"), (timedelta(0), "stream_time"), (SECOND, "x")]
)
def test_a_schedule_that_cannot_be(interval: timedelta, kind: Any) -> None:
    run = Run(topology_of(lambda context, key, value: None, lambda c: c.schedule(interval, kind, lambda time: None)))
    with pytest.raises(Exception, match=r"processor 'p'|'p'"):
        run.ticks()


def test_a_failing_punctuation_names_its_processor() -> None:
    run = Run(topology_of(lambda c, k, v: None, lambda c: c.schedule(SECOND, "wall_clock", lambda time: 1 // 0)))
    run.ticks(1)
    with pytest.raises(Exception, match=r"operator 'p' failed in a punctuation.*ZeroDivisionError"):
        run.ticks(1, step_ms=2_000)
