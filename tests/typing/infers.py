"""Checked by mypy, never run: types infer through lambdas."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any, assert_type
from uuid import UUID

from streamstate import (
    Branches,
    CogroupedStream,
    GroupedStream,
    Processor,
    ProcessorContext,
    SessionWindowedStream,
    Stream,
    Table,
    Topology,
    ValueProcessor,
    ValueTransformer,
    Windowed,
    WindowedStream,
    aggregates,
    dead_letter,
    event_time,
    serde,
    stores,
    time_limit,
    window_close,
    windows,
)


class Lengths(Processor[str, str, str, int]):
    def init(self, context: ProcessorContext[str, int]) -> None:
        super().init(context)
        self.seen = context.store("seen")

    def process(self, key: str, value: str) -> None:
        self.context.forward(key, len(value))


class Configured(Lengths):
    def __init__(self, limit: int) -> None:
        self.limit = limit


class Parts(ValueProcessor[str, str, int]):
    def process(self, key: str, value: str) -> None:
        self.context.forward(len(key + value), timestamp=5)


class Cut(ValueTransformer[str, str, bytes]):
    def transform(self, key: str, value: str | None) -> bytes | None:
        return None if value is None else (key + value).encode()


topology = Topology("t")
raw = topology.stream("raw")
assert_type(raw, Stream[bytes, bytes])
assert_type(topology.stream("ids", key=serde.uuid(), value=serde.list_(serde.short())), Stream[UUID, list[int | None]])
assert_type(topology.stream("flags", key=serde.date_(), value=serde.boolean()), Stream[date, bool])
assert_type(topology.stream("times", key=serde.time_(), value=serde.datetime_()), Stream[time, datetime])
assert_type(topology.stream("keyed", key=serde.string()), Stream[str, bytes])
assert_type(topology.stream(["a", "b"], value=serde.long(), on_error="continue"), Stream[bytes, int])
lines = topology.stream("lines", key=serde.string(), value=serde.string(), timestamp=lambda key, line: len(key + line))
assert_type(lines, Stream[str, str])
assert_type(lines.to_table(store="rows"), Table[str, str])
assert_type(lines.to_table(versioned=timedelta(hours=1)).to_stream(emit="change"), Stream[str, str])
flights = topology.stream("flights", key=serde.string(), value=serde.json(), on_error=dead_letter("bad"))
assert_type(flights, Stream[str, Any])
timed = topology.stream(
    "timed",
    key=serde.string(),
    value=serde.string(),
    timestamp=event_time(lambda key, line: len(key + line), future=timedelta(hours=1)),
)
assert_type(timed, Stream[str, str])
assert_type(topology.stream("stamped", value=serde.json(), timestamp=event_time("at")), Stream[bytes, Any])

assert_type(lines.filter(lambda key, line: line.startswith(key)), Stream[str, str])
assert_type(lines.filter_not(lambda key, line: line.startswith(key)), Stream[str, str])
assert_type(lines.map(lambda key, line: (len(key), line.encode())), Stream[int, bytes])
assert_type(lines.map_values(lambda line: len(line)), Stream[str, int])
assert_type(lines.map_values(len), Stream[str, int])
assert_type(lines.map_values(str.upper), Stream[str, str])
assert_type(lines.map_values(int), Stream[str, int])
assert_type(lines.map_values(lambda key, line: (key, len(line))), Stream[str, tuple[str, int]])
assert_type(lines.flat_map(lambda key, line: [(len(word), word) for word in line.split()]), Stream[int, str])
assert_type(lines.flat_map_values(lambda line: line.split()), Stream[str, str])
assert_type(lines.flat_map_values(str.split), Stream[str, str])
assert_type(lines.flat_map_values(lambda key, line: [len(key), len(line)]), Stream[str, int])
assert_type(lines.select_key(lambda key, line: len(line)), Stream[int, str])
assert_type(lines.peek(lambda key, line: print(key, line)), Stream[str, str])
assert_type(lines.map_batches(lambda batch: [len(line) for line in batch], size=64), Stream[str, int])
assert_type(
    lines.map_batches(lambda keys, batch: [len(key + line) for key, line in zip(keys, batch, strict=True)], delay=None),
    Stream[str, int],
)


async def answer(key: str, line: str) -> float:
    return len(key + line) / 2


async def short_answer(line: str) -> bytes:
    return line.encode()


assert_type(lines.map_async(answer, order="input"), Stream[str, float])
assert_type(lines.map_async(short_answer, timeout=None), Stream[str, bytes])
assert_type(lines.map_async(lambda line: short_answer(line)), Stream[str, bytes])
assert_type(lines.map_async(lambda key, line: answer(key, line)), Stream[str, float])
assert_type(lines.merge(topology.stream("more", key=serde.string(), value=serde.string())), Stream[str, str])
assert_type(lines.split(lambda key, line: bool(line)), tuple[Stream[str, str], ...])
branches = lines.split(short=lambda key, line: len(line) < 80, named=lambda key, line: line.startswith(key), name="by")
assert_type(branches, Branches[str, str])
assert_type(branches.short, Stream[str, str])
assert_type(branches["named"].map_values(len), Stream[str, int])
short, named_after, others = branches
assert_type(others, Stream[str, str])
assert_type(lines.repartition(name="r", partitions=4), Stream[str, str])
lines.to(lambda key, line: key + line)

assert_type(lines.process(Lengths, stores=["seen"]), Stream[str, int])
assert_type(lines.process(lambda: Configured(5)), Stream[str, int])
assert_type(lines.process_values(Parts), Stream[str, int])
assert_type(lines.process_values(lambda: Parts()), Stream[str, int])
assert_type(lines.transform_values(Cut), Stream[str, bytes])
lines.process(Lengths, stores=[stores.key_value("seen", key=serde.string(), value=serde.long())])

assert_type(lines.group_by_key(), GroupedStream[str, str])
by_length = lines.group_by(lambda key, line: len(line), key=serde.long())
assert_type(by_length, GroupedStream[int, str])
assert_type(by_length.count(), Table[int, int])
assert_type(by_length.reduce(lambda longest, line: max(longest, line, key=len)), Table[int, str])
assert_type(
    by_length.aggregate(
        initializer=lambda: 0, aggregator=lambda length, line, total: total + length + len(line), value=serde.long()
    ),
    Table[int, int],
)
named = by_length.aggregate(lines=aggregates.count(), longest=aggregates.max(len), store="stats")
assert_type(named, Table[int, dict[str, Any]])
assert_type(by_length.count().to_stream(emit="commit"), Stream[int, int])
assert_type(named.to_stream().map_values(lambda stats: len(stats)), Stream[int, int])

predicate: Callable[[object, object], bool] = lambda key, value: True  # noqa: E731
assert_type(lines.filter(predicate), Stream[str, str])


# -- windows, joins in time, cogroups ----------------------------------------------------------------------

hour = timedelta(hours=1)
hourly = by_length.windowed_by(windows.tumbling(hour))
assert_type(hourly, WindowedStream[int, str])
assert_type(by_length.windowed_by(windows.sliding(hour)).late_to("late"), WindowedStream[int, str])
assert_type(hourly.count(emit="close"), Table[Windowed[int], int])
assert_type(hourly.reduce(lambda longest, line: max(longest, line, key=len)), Table[Windowed[int], str])
assert_type(
    hourly.aggregate(
        initializer=lambda: 0, aggregator=lambda length, line, total: total + length + len(line), value=serde.long()
    ),
    Table[Windowed[int], int],
)
assert_type(hourly.aggregate(n=aggregates.count(), store="n"), Table[Windowed[int], dict[str, Any]])
assert_type(hourly.count().to_stream().map(lambda windowed, n: (windowed.key, n)), Stream[int, int])
assert_type(hourly.count().suppress(window_close()), Table[Windowed[int], int])
assert_type(hourly.count().suppress(time_limit(hour), max_records=5), Table[Windowed[int], int])
assert_type(hourly.count().suppress(time_limit(None), max_records=5), Table[Windowed[int], int])

sessions = by_length.windowed_by(windows.session(hour))
assert_type(sessions, SessionWindowedStream[int, str])
assert_type(sessions.late_to("late"), SessionWindowedStream[int, str])
assert_type(
    sessions.aggregate(
        initializer=lambda: 0,
        aggregator=lambda length, line, total: total + length,
        merger=lambda length, one, two: one + two,
        value=serde.long(),
    ),
    Table[Windowed[int], int],
)

words = topology.stream("words-to-join", key=serde.string(), value=serde.long())
within = windows.join(hour)
assert_type(lines.join(words, lambda line, number: len(line) + number, within=within), Stream[str, int])
assert_type(
    lines.left_join(words, lambda line, number: (line, number), within=within), Stream[str, tuple[str, int | None]]
)
assert_type(
    lines.outer_join(words, lambda line, number: (line, number), within=within),
    Stream[str, tuple[str | None, int | None]],
)
assert_type(
    lines.join(words, lambda key, line, number: (key, line, number), within=within), Stream[str, tuple[str, str, int]]
)
assert_type(
    lines.left_join(words, lambda key, line, number: (key, line, number), within=within),
    Stream[str, tuple[str, str, int | None]],
)
assert_type(
    lines.outer_join(words, lambda key, line, number: (key, line, number), within=within),
    Stream[str, tuple[str, str | None, int | None]],
)


# -- joins with tables, and of tables ------------------------------------------------------------------------

ages = topology.table("ages", key=serde.string(), value=serde.long())
names = topology.table("names", key=serde.string(), value=serde.string())
planes = topology.table("planes", key=serde.long(), value=serde.string())
airlines = topology.global_table("airlines", key=serde.long(), value=serde.string())
assert_type(lines.join(ages, lambda line, age: (line, age)), Stream[str, tuple[str, int]])
assert_type(lines.join(ages, lambda key, line, age: (key, line, age)), Stream[str, tuple[str, str, int]])
assert_type(lines.left_join(ages, lambda line, age: age), Stream[str, int | None])
assert_type(lines.left_join(ages, lambda key, line, age: (key, age)), Stream[str, tuple[str, int | None]])
assert_type(lines.join(airlines, lambda line, name: name, on=lambda key, line: len(line)), Stream[str, str])
assert_type(
    lines.join(airlines, lambda key, line, name: (key, name), on=lambda key, line: len(line)),
    Stream[str, tuple[str, str]],
)
assert_type(
    lines.left_join(airlines, lambda key, line, name: (key, name), on=lambda key, line: len(line)),
    Stream[str, tuple[str, str | None]],
)
assert_type(ages.map_values(lambda age: str(age)), Table[str, str])
assert_type(ages.map_values(lambda name, age: (name, age)), Table[str, tuple[str, int]])
assert_type(names.join(ages, lambda name, age: (name, age)), Table[str, tuple[str, int]])
assert_type(names.join(ages, lambda key, name, age: (key, name, age)), Table[str, tuple[str, str, int]])
assert_type(names.left_join(ages, lambda key, name, age: (key, age)), Table[str, tuple[str, int | None]])
assert_type(names.outer_join(ages, lambda key, name, age: (name, age)), Table[str, tuple[str | None, int | None]])
assert_type(names.join(planes, lambda name, plane: plane, foreign_key=lambda key, name: len(name)), Table[str, str])
assert_type(
    names.join(planes, lambda key, name, plane: (key, plane), foreign_key=lambda key, name: len(name)),
    Table[str, tuple[str, str]],
)
assert_type(
    names.left_join(planes, lambda key, name, plane: (key, plane), foreign_key=lambda key, name: len(name)),
    Table[str, tuple[str, str | None]],
)


def longer(key: str, line: str, total: int) -> int:
    return total + len(line)


both = lines.group_by_key().cogroup(longer).cogroup(words.group_by_key(), lambda key, number, total: total + number)
assert_type(both, CogroupedStream[str, int])
assert_type(both.aggregate(initializer=int, value=serde.long()), Table[str, int])
assert_type(
    both.windowed_by(windows.tumbling(hour)).aggregate(initializer=int, value=serde.long()), Table[Windowed[str], int]
)
assert_type(
    both.windowed_by(windows.session(hour)).aggregate(
        initializer=int, merger=lambda key, one, two: one + two, value=serde.long()
    ),
    Table[Windowed[str], int],
)

# Types stand for serdes, a topology has types of its own, fields have names.
shop = Topology("shop", key=str, value=dict)
assert_type(shop, Topology[str, dict[Any, Any]])
assert_type(shop.stream("orders"), Stream[str, dict[Any, Any]])
assert_type(shop.stream("amounts", value=int), Stream[str, int])
assert_type(shop.table("rows", key=bytes), Table[bytes, dict[Any, Any]])
assert_type(Topology("ids", value=float).stream("in"), Stream[bytes, float])
assert_type(shop.stream("orders").group_by("shop", key=int), GroupedStream[int, dict[Any, Any]])
assert_type(shop.stream("orders").select_key("id", key=int), Stream[int, dict[Any, Any]])
assert_type(shop.stream("orders").map_values(lambda order: len(order), value=int), Stream[str, int])
assert_type(shop.stream("orders").map(lambda key, order: (len(key), key), key=int, value=str), Stream[int, str])
assert_type(shop.stream("orders").dedupe("1h", by="id"), Stream[str, dict[Any, Any]])
assert_type(shop.stream("orders").print(), Stream[str, dict[Any, Any]])
assert_type(shop.table("rows").print("row"), Table[str, dict[Any, Any]])
assert_type(
    shop.stream("amounts", value=int)
    .group_by_key()
    .aggregate(initializer=int, aggregator=lambda key, amount, total: total + amount, value=int),
    Table[str, int],
)
