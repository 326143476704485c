"""Checked by mypy, never run: types infer through lambdas."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, assert_type

from streamstate import (
    GroupedStream,
    Processor,
    ProcessorContext,
    Stream,
    Table,
    Topology,
    aggregates,
    dead_letter,
    event_time,
    serde,
    stores,
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


topology = Topology("t")
raw = topology.stream("raw")
assert_type(raw, Stream[bytes, bytes])
assert_type(topology.stream("keyed", key=serde.string()), Stream[str, bytes])
assert_type(topology.stream(["a", "b"], value=serde.long(), on_error="continue"), Stream[bytes, int])
lines = topology.stream("lines", key=serde.string(), value=serde.string(), timestamp=lambda key, line: len(key + line))
assert_type(lines, Stream[str, str])
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
assert_type(lines.flat_map(lambda key, line: [(len(word), word) for word in line.split()]), Stream[int, str])
assert_type(lines.flat_map_values(lambda line: line.split()), Stream[str, str])
assert_type(lines.flat_map_values(str.split), Stream[str, str])
assert_type(lines.select_key(lambda key, line: len(line)), Stream[int, str])
assert_type(lines.peek(lambda key, line: print(key, line)), Stream[str, str])
assert_type(lines.map_batches(lambda batch: [len(line) for line in batch], size=64), Stream[str, int])


async def answer(key: str, line: str) -> float:
    return len(key + line) / 2


assert_type(lines.map_async(answer, order="input"), Stream[str, float])
assert_type(lines.merge(topology.stream("more", key=serde.string(), value=serde.string())), Stream[str, str])
assert_type(lines.split(lambda key, line: bool(line)), tuple[Stream[str, str], ...])
assert_type(lines.repartition(name="r", partitions=4), Stream[str, str])
lines.to(lambda key, line: key + line)

assert_type(lines.process(Lengths, stores=["seen"]), Stream[str, int])
assert_type(lines.process(lambda: Configured(5)), Stream[str, int])
lines.process(Lengths, stores=[stores.key_value("seen", key=serde.string(), value=serde.long())])

assert_type(lines.group_by_key(), GroupedStream[str, str])
by_length = lines.group_by(lambda key, line: len(line), key=serde.long())
assert_type(by_length, GroupedStream[int, str])
assert_type(by_length.count(), Table[int, int])
assert_type(by_length.reduce(lambda longest, line: max(longest, line, key=len)), Table[int, str])
assert_type(
    by_length.aggregate(lambda: 0, lambda length, line, total: total + length + len(line), value=serde.long()),
    Table[int, int],
)
named = by_length.aggregate(lines=aggregates.count(), longest=aggregates.max(len), store="stats")
assert_type(named, Table[int, dict[str, Any]])
assert_type(by_length.count().to_stream(emit="commit"), Stream[int, int])
assert_type(named.to_stream().map_values(lambda stats: len(stats)), Stream[int, int])

predicate: Callable[[object, object], bool] = lambda key, value: True  # noqa: E731
assert_type(lines.filter(predicate), Stream[str, str])
