"""Joins of streams against a model that looks at every pair, with commits, crashes and restores in between."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import Topology, serde, windows
from streamstate.operators.stream_join import runtime as stream_join
from tests.property.chain import Chain, Sent

TEXT = serde.string()
NUMBER = serde.long()

Kind = Literal["join", "left_join", "outer_join"]
Side = Literal["left", "right"]


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


@dataclass
class Model:
    """Every record that was kept, and which of them still wait."""

    kind: Kind
    before: int
    after: int
    grace: int
    time: int = -1
    seen: dict[Side, int] = field(default_factory=lambda: {"left": -1, "right": -1})
    kept: dict[Side, list[tuple[int, str, int]]] = field(default_factory=lambda: {"left": [], "right": []})
    waiting: list[tuple[int, Side, str, int]] = field(default_factory=list)

    def alone(self, side: Side) -> bool:
        return self.kind == "outer_join" or (self.kind == "left_join" and side == "left")

    def delay(self, side: Side) -> int:
        return (self.after if side == "left" else self.before) + self.grace

    def is_live(self, side: Side, time: int) -> bool:
        return time >= self.seen[side] - self.before - self.after - self.grace

    def take(self, side: Side, key: str | None, number: int | None, time: int) -> list[Sent]:
        """One record; what comes out."""

        def pair(mine: Any, other: Any) -> str:
            return f"{mine},{other}" if side == "left" else f"{other},{mine}"

        sent: list[Sent] = []
        if key is None or number is None:
            # Not kept, so it moves no time.
            return [(None, pair(number, None), time)] if number is not None and self.alone(side) else []
        self.time = max(self.time, time)
        if time == self.time:
            due = [w for w in self.waiting if w[0] + self.delay(w[1]) < self.time]
            self.waiting = [w for w in self.waiting if w not in due]
            for at, where, who, what in sorted(due, key=lambda w: (w[0], w[1] == "left", w[2].encode(), w[3])):
                sent.append((who, f"{what},None" if where == "left" else f"None,{what}", at))
        other: Side = "right" if side == "left" else "left"
        before, after = (self.before, self.after) if side == "left" else (self.after, self.before)
        near = [
            (at, what)
            for at, who, what in self.kept[other]
            if who == key and time - before <= at <= time + after and self.is_live(other, at)
        ]
        for at, what in sorted(near):
            self.waiting = [w for w in self.waiting if w != (at, other, key, what)]
            sent.append((key, pair(number, what), max(at, time)))
        if not near and self.alone(side):
            if time + after < self.time:
                sent.append((key, pair(number, None), time))
            else:
                self.waiting.append((time, side, key, number))
        self.seen[side] = max(self.seen[side], time)
        if self.is_live(side, time):
            self.kept[side].append((time, key, number))
        return sent


Step = tuple[Side, str | None, bool, int] | str
RECORDS = st.tuples(
    st.sampled_from(["left", "right"]),
    st.sampled_from(["a", "b", "ab", None, "a", "b"]),
    st.sampled_from([True, True, True, True, False]),
    st.integers(0, 200_000).map(lambda time: time if time % 3 else time // 1_000),
)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        RECORDS,
        RECORDS,
        RECORDS,
        RECORDS,
        RECORDS,
        st.sampled_from(["commit", "seal", "settle", "crash", "discard", "restore", "fail"]),
    ),
    max_size=60,
)


def topology(kind: Kind, within: windows.JoinWindows, self_join: bool = False) -> Topology:
    topology = Topology("t")
    left = topology.stream("left", key=TEXT, value=NUMBER)
    right = left if self_join else topology.stream("right", key=TEXT, value=NUMBER)
    joined = getattr(left, kind)(right, lambda one, other: f"{one},{other}", within=within, store="j")
    joined.peek(lambda key, value: 1 // ("-1" not in value)).to("out", value=TEXT)
    return topology


@settings(max_examples=300)
@given(
    st.sampled_from(["join", "left_join", "outer_join"]),
    st.sampled_from([(10, 10), (0, 20), (20, 0), (0, 0), (100_000, 70_000)]),
    st.sampled_from([0, 5, 50_000]),
    STEPS,
    st.booleans(),
    st.sampled_from([0, 1 << 20]),
    st.sampled_from([1, 3, 1_000]),
)
def test_joins(
    kind: Kind, shape: tuple[int, int], grace: int, steps: list[Step], undoing: bool, cache_bytes: int, known: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # How many of those that wait are known in memory.
        patch.setattr(stream_join, "_KNOWN", known)
        check(kind, shape, grace, steps, undoing, cache_bytes)


def check(kind: Kind, shape: tuple[int, int], grace: int, steps: list[Step], undoing: bool, cache_bytes: int) -> None:
    """Run the join and the model, side by side."""
    before, after = shape
    within = windows.join(before=ms(before), after=ms(after), grace=ms(grace))
    chain = Chain(topology(kind, within), undoing=undoing, cache_bytes=cache_bytes)
    model = Model(kind, before, after, grace)
    committed = deepcopy(model)
    sealed = committed
    for number, step in enumerate([*steps, "commit"]):
        if step == "seal":
            chain.seal()
            committed, sealed = sealed, deepcopy(model)
        elif step == "settle":
            chain.settle()
            committed = sealed
        elif step == "commit":
            chain.commit()
            committed = sealed = deepcopy(model)
            for store in chain.part.stores:
                assert chain.content(store) == chain.replayed(store)
        elif step == "fail":
            if undoing and kind != "join":
                # Without a key: sent alone at once, and fails. Then far ahead: lets go what waits, and cannot be kept.
                assert chain.send("left", None, -1, 1_000_000) is False
                assert chain.send("left", "a", "no number", 1_000_000) is False
        elif isinstance(step, str):
            getattr(chain, step)()
            for operator in chain.compiled.processors:
                operator.init()
            model, sealed = deepcopy(committed), committed
        else:
            side, key, has_value, time = step
            value = number if has_value else None
            assert chain.send(side, key, value, time)
            assert chain.taken("out", TEXT.deserialize, TEXT.deserialize) == model.take(side, key, value, time)


@settings(max_examples=200)
@given(
    st.sampled_from([(10, 10), (0, 20), (20, 0), (0, 0)]),
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 60)), max_size=30),
    st.sampled_from([0, 4]),
)
def test_a_self_join_is_as_if_the_stream_were_read_twice(
    shape: tuple[int, int], records: list[tuple[str, int]], every: int
) -> None:
    before, after = shape
    chain = Chain(topology("join", windows.join(before=ms(before), after=ms(after), grace=ms(5)), self_join=True))
    model = Model("join", before, after, 5)
    for number, (key, time) in enumerate(records):
        chain.send("left", key, number, time)
        found = chain.taken("out", TEXT.deserialize, TEXT.deserialize)
        assert found == model.take("left", key, number, time) + model.take("right", key, number, time)
        if every and number % every == 0:
            chain.commit()
            chain.restore()


@pytest.mark.parametrize("undoing", [False, True])
def test_nothing_meets_what_is_before_1970(undoing: bool) -> None:
    """Only a processor can give a record such a time. Where records may fail, the join is another piece of code."""
    met: list[str] = []
    topology = Topology("t")
    left = topology.stream("left", key=TEXT, value=TEXT)
    right = topology.stream("right", key=TEXT, value=TEXT)
    joined = left.join(right, lambda one, other: f"{one},{other}", within=windows.join(ms(100)), store="j")
    joined.for_each(lambda key, value: met.append(value))
    chain = Chain(topology, undoing=undoing)
    for side, value, time in (("left", "a", -50), ("right", "b", -40), ("left", "c", 10), ("right", "d", 60)):
        chain.send(side, "k", value, time)
    assert met == ["c,d"]
    chain.send("right", "k", "e", 60)
    assert met == ["c,d", "c,e"]
