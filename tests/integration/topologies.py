"""Topologies that integration tests run, as functions of topic names."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from streamstate import (
    ErrorPolicy,
    Processor,
    ProcessorContext,
    Topology,
    aggregates,
    dead_letter,
    serde,
    stores,
    windows,
)


def word_count(lines: str, counts: str, emit: Any = "update", gate: str | None = None) -> Topology:
    """The word count of ``topologies/word_count.py``, on other topics.

    Args:
        lines, counts: topics.
        emit: of the table.
        gate: a path; a line "gate" holds the worker, in the middle of its batch, until it exists.
    """
    topology = Topology("word-count")
    source = topology.stream(lines, value=serde.string())
    if gate is not None:
        source = source.peek(lambda key, line: _held(Path(gate)) if line == "gate" else None)
    (
        source.flat_map_values(str.split)
        .group_by(lambda key, word: word, key=serde.string(), value=serde.string())
        .count(store="word-counts")
        .to_stream(emit=emit)
        .map_values(str)
        .to(counts, value=serde.string())
    )
    return topology


def held_word_count(lines: str, counts: str) -> Topology:
    """The same by way of awaited calls and of batches, each of which holds records back."""

    async def words_of(key: Any, line: str) -> list[str]:
        await asyncio.sleep(0.002)
        return line.split()

    topology = Topology("word-count")
    words = topology.stream(lines, value=serde.string()).map_async(words_of, in_flight=20).flat_map_values(list)
    counted = words.group_by(lambda key, word: word, key=serde.string(), value=serde.string()).count(
        store="word-counts"
    )
    texts = counted.to_stream().map_batches(lambda numbers: [str(number) for number in numbers], size=50)
    texts.to(counts, value=serde.string())
    return topology


def _held(gate: Path) -> None:
    (gate.parent / f"{gate.name}.reached").touch()
    while not gate.exists():
        time.sleep(0.01)


def merged_count(left: str, right: str, counts: str, order: str | None = None, slow: float = 0) -> Topology:
    """Counts words that are the keys of two topics, in one task per partition of both.

    Args:
        left, right, counts: topics.
        order: a topic that gets all records as they are processed.
        slow: seconds that each record takes.
    """
    topology = Topology("merged-count")
    merged = topology.stream(left, key=serde.string(), value=serde.string()).merge(
        topology.stream(right, key=serde.string(), value=serde.string())
    )
    if slow:
        merged = merged.peek(lambda key, value: time.sleep(slow))
    if order is not None:
        merged.to(order)
    merged.group_by_key().count(store="merged").to_stream().map_values(str).to(counts, value=serde.string())
    return topology


class Tally(Processor[bytes, str, str, str]):
    """Counts words and forwards ``word=count``, one by one; fails, if at all, after it has written and sent."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.tally = context.store("tally")

    def process(self, key: bytes, value: str) -> None:
        for word in value.split():
            if word == "fail!":
                raise RuntimeError("this line says so")
            count = (self.tally.get(word) or 0) + 1
            self.tally.put(word, count)
            self.context.forward(word, str(count))


def tallied(lines: str, counts: str, action: Any = "fail", dead: str | None = None, on: str = "source") -> Topology:
    """Counts words in a Processor under an error policy; a line with "fail!" fails after what stands before it.

    Args:
        lines, counts: topics.
        action: fail, continue or dead_letter.
        dead: the dead-letter topic.
        on: where the policy is given: source or processor.
    """
    policy: ErrorPolicy = dead_letter(dead) if dead is not None else ErrorPolicy(action)
    topology = Topology("tallied")
    source = topology.stream(lines, value=serde.string(), on_error=policy if on == "source" else "fail")
    tally = stores.key_value("tally", key=serde.string(), value=serde.long())
    source.process(Tally, stores=[tally], name="tally", on_error=policy if on == "processor" else None).to(
        counts, key=serde.string(), value=serde.string()
    )
    return topology


class Sums(Processor[str, str, str, str]):
    """Keeps the last value of each key; says the stream time every hour of it, and the wall clock 5 times a second."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.latest = context.store("latest")
        context.schedule(timedelta(hours=1), "stream_time", self.hour)
        context.schedule(timedelta(milliseconds=200), "wall_clock", self.tick)

    def process(self, key: str, value: str) -> None:
        self.latest.put(key, value)

    def hour(self, time_ms: int) -> None:
        entries = ",".join(f"{key}={value}" for key, value in self.latest.all())
        self.context.forward("stream", f"{time_ms} {entries}")

    def tick(self, time_ms: int) -> None:
        ticks = int(self.latest.get("~ticks") or 0) + 1
        self.latest.put("~ticks", str(ticks))
        self.context.forward("wall", str(ticks), timestamp=time_ms)


def punctuated(readings: str, out: str) -> Topology:
    """A Processor with a store and both kinds of punctuation."""
    topology = Topology("punctuated")
    latest = stores.key_value("latest", key=serde.string(), value=serde.string())
    (
        topology.stream(readings, key=serde.string(), value=serde.string())
        .process(Sums, stores=[latest], name="sums")
        .to(out, key=serde.string(), value=serde.string())
    )
    return topology


def timed_word_count(lines: str, counts: str, action: Any = "fail", dead: str | None = None) -> Topology:
    """Word count of ``time text`` lines, the event time in the value."""
    topology = Topology("timed-word-count")
    policy: ErrorPolicy = dead_letter(dead) if dead is not None else ErrorPolicy(action)
    (
        topology.stream(lines, value=serde.string(), timestamp=lambda key, line: int(line.split()[0]), on_error=policy)
        .flat_map_values(lambda line: line.split()[1:])
        .group_by(lambda key, word: word, key=serde.string(), value=serde.string())
        .count(store="timed")
        .to_stream()
        .map_values(str)
        .to(counts, value=serde.string())
    )
    return topology


def upper(lines: str, out: str, action: Any = "fail", dead: str | None = None, reset: Any = "earliest") -> Topology:
    """No state at all."""
    policy: ErrorPolicy = dead_letter(dead) if dead is not None else ErrorPolicy(action)
    topology = Topology("upper")
    source = topology.stream(lines, value=serde.string(), on_error=policy, reset=reset)
    source.map_values(str.upper).to(out, value=serde.string())
    return topology


def looked_up(lines: str, names: str, out: str) -> Topology:
    """Each line beside the row of a global table that it names."""
    topology = Topology("looked-up")
    rows = topology.global_table(names, key=serde.string(), value=serde.string())
    stream = topology.stream(lines, value=serde.string())
    joined = stream.left_join(rows, lambda line, row: f"{line}={row}", on=lambda key, line: line)
    joined.to(out, value=serde.string())
    return topology


def windows_of_all_kinds(left: str, right: str, out: str) -> Topology:
    """Counts by tumbling window and by session, when they close, and a left join; all to one topic, by key.

    Args:
        left, right: topics of equal partitions; the event time is the record's.
        out: a topic of as many.
    """
    topology = Topology("windows")
    lefts = topology.stream(left, key=serde.string(), value=serde.string())
    rights = topology.stream(right, key=serde.string(), value=serde.string())
    grouped = lefts.group_by_key()
    grace = timedelta(seconds=2)
    tumbling = grouped.windowed_by(windows.tumbling(timedelta(seconds=10), grace=grace))
    sessions = grouped.windowed_by(windows.session(timedelta(seconds=3), grace=grace))
    for name, counted in (
        ("tumbling", tumbling.count(store="tumbling", emit="close")),
        ("sessions", sessions.count(store="sessions", emit="close")),
    ):
        counted.to_stream().map(
            lambda windowed, number, name=name: (windowed.key, f"{name} {windowed.start} {windowed.end} {number}")
        ).to(out, key=serde.string(), value=serde.string())
    joined = lefts.left_join(
        rights,
        lambda one, other: f"{one} {other}",
        within=windows.join(timedelta(seconds=1), grace=grace),
        store="join",
    )
    joined.to(out, value=serde.string())
    return topology


def fleet(planes: str, models: str, airlines: str, flights: str, named: str, described: str) -> Topology:
    """Flights with their planes (a table whose topic is its changelog) and airlines (a global table), and planes with
    their models (by foreign key).

    Args:
        planes, models, airlines, flights, named, described: topics.
    """
    text = serde.string()
    topology = Topology("fleet")
    plane = topology.table(planes, key=text, value=text, store="planes")
    airline = topology.global_table(airlines, key=text, value=text)
    flown = topology.stream(flights, key=text, value=text)
    with_plane = flown.left_join(plane, lambda flight, model: f"{flight} {model}", name="with-plane")
    with_plane.left_join(airline, lambda flight, name: f"{flight} {name}", on=lambda tail, flight: flight[:2]).to(
        named, value=text
    )
    model = topology.table(models, key=text, value=text, store="models")
    joined = plane.left_join(
        model, lambda name, text: f"{name}: {text}", foreign_key=lambda tail, name: name, value=text, name="described"
    )
    joined.to_stream().to(described)
    return topology


class AllKinds(Processor[str, str, str, str]):
    """Uses a store of each kind, and tells what it finds."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.recent, self.latest = context.store("recent"), context.store("latest")
        self.minutes, self.visits = context.store("minutes"), context.store("visits")
        self.timers = context.timers("quiet", self.quiet)

    def process(self, key: str, value: str) -> None:
        time_ms = self.context.timestamp
        minute = time_ms // 60_000 * 60_000
        seen = self.recent.put_if_absent(key, value)
        self.latest.append(key, value)
        self.minutes.put(key, (self.minutes.get(key, minute) or 0) + 1, minute)
        self.visits.put(key, minute, time_ms, len(value))
        self.timers.set(key, time_ms + 900)
        counts = [count for _, count in self.minutes.fetch(key)]
        visits = len(list(self.visits.fetch(key)))
        self.context.forward(key, f"{value}: {seen} {self.latest.get(key)} {counts} {visits}")

    def quiet(self, key: str, time_ms: int) -> None:
        self.context.forward(key, f"quiet after {self.latest.pop(key)}")


def stores_of_all_kinds(numbers: str, told: str) -> Topology:
    """One processor with a store of each kind."""
    topology = Topology("all-kinds")
    text, long, minute = serde.string(), serde.long(), timedelta(minutes=1)
    kept = [
        stores.key_value("recent", key=text, value=text, ttl=timedelta(milliseconds=700)),
        stores.list_("latest", key=text, value=text, maxlen=3),
        stores.window("minutes", key=text, value=long, size=minute, retention=5 * minute),
        stores.session("visits", key=text, value=long, retention=3 * minute),
        stores.timers("quiet", key=text),
    ]
    topology.stream(numbers, key=text, value=text).process(AllKinds, stores=kept).to(told, key=text, value=text)
    return topology


def aggregated(lines: str, out: str, named: Any = ("n",), grace_s: int = 0, gap_s: int = 3_600) -> Topology:
    """Ready aggregates of the numbers of a key, and sessions of it; both may be changed while their state stays.

    Args:
        lines, out: topics.
        named: which aggregates: ``n``, ``total``, ``largest``.
        grace_s, gap_s: of the sessions.
    """
    ready = {"n": aggregates.count(), "total": aggregates.sum(), "largest": aggregates.max()}
    topology = Topology("aggregated")
    numbers = topology.stream(lines, key=serde.string(), value=serde.json()).group_by_key()
    table = numbers.aggregate(**{name: ready[name] for name in named}, store="totals")
    table.to_stream().to(out, value=serde.json())
    sessions = windows.session(timedelta(seconds=gap_s), grace=timedelta(seconds=grace_s))
    numbers.windowed_by(sessions).count(store="sessions")
    return topology
