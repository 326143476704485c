"""Windowed aggregations against models that do it by definition, with commits, crashes and restores in between."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import Topology, serde, windows
from streamstate.state import window_index as segments
from streamstate.windows import Windowed
from streamstate.windows.keys import INDEX_MARK, TIME_KEY, bucket
from tests.property.chain import Chain, Sent

TEXT = serde.string()
NUMBER = serde.long()
VALUES = serde.json()

Emit = Literal["update", "close"]
Step = tuple[str, int] | str

RECORDS = st.tuples(st.sampled_from(["a", "b", "ab"]), st.integers(0, 60))
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(*[RECORDS] * 4, st.sampled_from(["commit", "seal", "settle", "crash", "discard", "restore", "fail"])),
    max_size=40,
)
EMITS: st.SearchStrategy[Emit] = st.sampled_from(["update", "close"])


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


class Model:
    """By definition: every window keeps the records that it took."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.time = -1
        self.late = 0
        self.windows: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
        self.closed: set[tuple[str, int, int]] = set()

    def take(self, key: str, number: int, time: int) -> list[Sent]:
        """One record; what comes out."""
        self.time = max(self.time, time)
        sent = self.updates(key, number, time)
        if self.emit == "update":
            return sent
        closing = [w for w in self.windows if w not in self.closed and self.is_closed(w)]
        self.closed.update(closing)
        return [self.result(window) for window in sorted(closing, key=self.order)]

    def updates(self, key: str, number: int, time: int) -> list[Sent]:
        raise NotImplementedError

    def is_closed(self, window: tuple[str, int, int]) -> bool:
        raise NotImplementedError

    def order(self, window: tuple[str, int, int]) -> Any:
        return window[1], window[0].encode()

    def result(self, window: tuple[str, int, int]) -> Sent:
        records = self.windows[window]
        return Windowed(*window), [number for _, number in records], max(time for time, _ in records)


class TimeModel(Model):
    def __init__(self, emit: Emit, size: int, advance: int, grace: int) -> None:
        super().__init__(emit)
        self.size, self.advance, self.grace = size, advance, grace

    def updates(self, key: str, number: int, time: int) -> list[Sent]:
        sent = []
        for start in range(0, time + 1, self.advance):
            window = (key, start, start + self.size)
            if start <= time < start + self.size and not self.is_closed(window):
                self.windows.setdefault(window, []).append((time, number))
                sent.append(self.result(window))
        self.late += not sent
        return sent

    def is_closed(self, window: tuple[str, int, int]) -> bool:
        return window[2] <= self.time - self.grace


class SessionModel(Model):
    def __init__(self, emit: Emit, gap: int, grace: int) -> None:
        super().__init__(emit)
        self.gap, self.grace = gap, grace

    def updates(self, key: str, number: int, time: int) -> list[Sent]:
        near = sorted(
            w
            for w in self.windows
            if w[0] == key and not self.is_closed(w) and w[1] - self.gap <= time <= w[2] + self.gap
        )
        if not near and self.is_closed((key, time, time)):
            self.late += 1
            return []
        window = (key, min([time, *(w[1] for w in near)]), max([time, *(w[2] for w in near)]))
        records = [record for w in near for record in self.windows.pop(w)] + [(time, number)]
        self.windows[window] = records
        replaced: list[Sent] = [(Windowed(*w), None, w[2]) for w in near if window[1] != window[2]]
        return [*replaced, self.result(window)]

    def is_closed(self, window: tuple[str, int, int]) -> bool:
        return window[2] < self.time - self.grace - self.gap

    def order(self, window: tuple[str, int, int]) -> Any:
        return window[2], window[1], window[0].encode()


def topology(made: Any, emit: Emit) -> Topology:
    topology = Topology("t")
    grouped = topology.stream("in", key=TEXT, value=NUMBER).group_by_key()
    if isinstance(made, windows.SessionWindows):
        table = grouped.windowed_by(made).aggregate(
            initializer=list,
            aggregator=lambda k, v, seen: [*seen, v],
            merger=lambda k, a, b: a + b,
            value=VALUES,
            store="s",
            emit=emit,
        )
    else:
        table = grouped.windowed_by(made).aggregate(
            initializer=list, aggregator=lambda k, v, seen: [*seen, v], value=VALUES, store="s", emit=emit
        )
    checked = table.to_stream().peek(lambda windowed, value: 1 // (value is None or value[-1] >= 0))
    checked.to("out", value=VALUES)
    return topology


def keys(made: Any) -> Any:
    if isinstance(made, windows.SessionWindows):
        return windows.session_windowed(TEXT)
    length = made.size_ms if isinstance(made, windows.TimeWindows) else made.difference_ms
    return windows.time_windowed(TEXT, ms(length))


def check(made: Any, model: Model, steps: list[Step], undoing: bool, cache_bytes: int) -> None:
    """Run both, side by side."""
    chain = Chain(topology(made, model.emit), undoing=undoing, cache_bytes=cache_bytes)
    committed = deepcopy(model)
    decode_key = keys(made).deserialize
    sealed = committed
    for number, step in enumerate([*steps, "commit", "restore"]):
        if step == "seal":
            chain.seal()
            committed, sealed = sealed, deepcopy(model)
        elif step == "settle":
            chain.settle()
            committed = sealed
        elif step == "commit":
            chain.commit()
            committed = sealed = deepcopy(model)
            assert chain.content("s") == chain.replayed("s")
        elif step in ("crash", "discard", "restore"):
            getattr(chain, str(step))()
            model, sealed = deepcopy(committed), committed
        elif step == "fail":
            if undoing and model.emit == "update":
                # Far ahead: what it would have made late or expired has to come back.
                assert not chain.send("in", "a", -1, 10_000)
        else:
            assert isinstance(step, tuple)
            key, time = step
            assert chain.send("in", key, number, time)
            assert chain.taken("out", decode_key, VALUES.deserialize) == model.take(key, number, time)


@settings(max_examples=150)
@given(EMITS, st.sampled_from([(10, 10), (10, 5), (10, 3), (1, 1)]), st.sampled_from([0, 4, 20]), STEPS, st.booleans(),
       st.sampled_from([0, 1 << 20]))  # fmt: skip
def test_time_windows(
    emit: Emit, shape: tuple[int, int], grace: int, steps: list[Step], undoing: bool, cache_bytes: int
) -> None:
    size, advance = shape
    check(
        windows.hopping(ms(size), ms(advance), grace=ms(grace)),
        TimeModel(emit, size, advance, grace),
        steps,
        undoing,
        cache_bytes,
    )


@settings(max_examples=150)
@given(EMITS, st.sampled_from([1, 4, 15]), st.sampled_from([0, 5, 40]), STEPS, st.booleans(),
       st.sampled_from([0, 1 << 20]), st.sampled_from([0, 1, 1_000]))  # fmt: skip
def test_sessions(
    emit: Emit, gap: int, grace: int, steps: list[Step], undoing: bool, cache_bytes: int, ahead: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "READ_AHEAD", ahead)
        check(windows.session(ms(gap), grace=ms(grace)), SessionModel(emit, gap, grace), steps, undoing, cache_bytes)


def sliding_by_definition(records: list[tuple[str, int]], difference: int) -> dict[Windowed[str], list[int]]:
    """Every window there has to be, with the numbers of its records."""
    found: dict[Windowed[str], list[int]] = {}
    for key in {key for key, _ in records}:
        times = [time for other, time in records if other == key]
        starts = {max(0, time - difference) for time in times} | {time + 1 for time in times}
        for start in starts:
            held = [n for n, (other, t) in enumerate(records) if other == key and start <= t <= start + difference]
            if held:
                found[Windowed(key, start, start + difference)] = held
    return found


@settings(max_examples=200)
@given(st.lists(RECORDS, max_size=25), st.sampled_from([0, 3, 10, 70]), st.sampled_from([0, 7]))
def test_sliding_windows_that_never_close(records: list[tuple[str, int]], difference: int, every: int) -> None:
    made = windows.sliding(ms(difference), grace=ms(1_000))
    chain = Chain(topology(made, "update"), cache_bytes=0)
    newest: dict[Any, tuple[Any, int]] = {}
    for number, (key, time) in enumerate(records):
        chain.send("in", key, number, time)
        for windowed, value, timestamp in chain.taken("out", keys(made).deserialize, VALUES.deserialize):
            newest[windowed] = (sorted(value), timestamp)
        if every and number % every == 0:
            chain.commit()
            chain.restore()
    wanted = sliding_by_definition(records, difference)
    assert {windowed: value for windowed, (value, _) in newest.items()} == wanted
    for windowed, (value, timestamp) in newest.items():
        assert timestamp == max(records[number][1] for number in value), windowed


@settings(max_examples=150)
@given(STEPS, st.sampled_from([0, 3, 10]), st.sampled_from([0, 5, 30]), st.booleans())
def test_sliding_windows_close_with_their_last_update(
    steps: list[Step], difference: int, grace: int, undoing: bool
) -> None:
    made = windows.sliding(ms(difference), grace=ms(grace))
    updating, closing = (Chain(topology(made, emit), undoing=undoing, cache_bytes=0) for emit in ("update", "close"))
    newest: dict[Any, Sent] = {}
    closed: dict[Any, Sent] = {}
    decode_key = keys(made).deserialize
    for number, step in enumerate([*steps, ("end", 1_000)]):
        if isinstance(step, str):
            for chain in (updating, closing):
                if step in ("seal", "settle"):
                    getattr(chain, step)()
                    continue
                chain.commit()
                if step in ("crash", "discard", "restore"):
                    getattr(chain, step)()
            continue
        key, time = step
        for chain in (updating, closing):
            chain.send("in", key, number, time)
        newest.update({sent[0]: sent for sent in updating.taken("out", decode_key, VALUES.deserialize)})
        for sent in closing.taken("out", decode_key, VALUES.deserialize):
            assert sent[0] not in closed, "closed twice"
            closed[sent[0]] = sent
    assert closed == {windowed: sent for windowed, sent in newest.items() if windowed.key != "end"}


@settings(max_examples=100)
@given(st.lists(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 100_000)), max_size=8), max_size=12))
def test_what_has_expired_is_gone_from_store_and_changelog(commits: list[list[tuple[str, int]]]) -> None:
    made = windows.session(ms(10_000), grace=ms(20_000))
    chain = Chain(topology(made, "close"))
    length = 60_000
    time = -1
    for records in commits:
        for key, at in records:
            chain.send("in", key, 1, at)
            time = max(time, at)
        chain.commit()
        assert chain.content("s") == chain.replayed("s")
        horizon = (time - 30_000) // length * length
        for key in chain.content("s"):
            assert key == TIME_KEY or key[8:12] == INDEX_MARK or key >= bucket(horizon, b"")[:8]
