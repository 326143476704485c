"""Records of several inputs taken in runs: what comes out is what taking them one by one gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.ports import Message, TopicPartition
from streamstate.engine.task.error_policy import ErrorPolicyHandler
from streamstate.engine.task.input_merger import InputMerger
from streamstate.engine.task.inputs import Input
from streamstate.errors import ProcessingError
from streamstate.graph.error_policy import CONTINUE, FAIL, ErrorPolicy
from streamstate.operators.base.compilation import SourceEntry
from streamstate.operators.base.context import NO_LIMIT_MS, TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.state.undo import UndoLog
from streamstate.testing.memory_broker.clock import ManualClock

TOPICS = ("a", "b", "c")
# Two that both have records take turns in a way of their own.
TWO = TOPICS[:2]
# Those of a record's value that fail: in its decoder, in the operator, or by having no time.
UNDECODABLE, FAILING, TIMELESS = b"undecodable", b"failing", b"timeless"


@dataclass(frozen=True)
class Record:
    """As the client's messages."""

    of: str
    at: int
    data: bytes | None
    time: int

    def topic(self) -> str:
        return self.of

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return b"%d" % self.at

    def value(self) -> bytes | None:
        return self.data

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time

    def headers(self) -> None:
        return None


@dataclass
class Side:
    """A task's inputs and all that happened."""

    one_by_one: bool
    policy: ErrorPolicy
    topics: tuple[str, ...] = TOPICS
    inputs: dict[str, Input] = field(default_factory=dict)
    seen: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.undo: UndoLog | None = None if self.policy is FAIL else []
        self.context = TaskContext("app", "t_0", lambda: 0, lambda topic: [NO_LIMIT_MS, NO_LIMIT_MS, 0])
        self.failures = ErrorPolicyHandler("t_0", lambda: 0, self.undo)
        self.failures.begin(self.context, {})
        self.pace = BatchSizer(ManualClock(), 1_000, 100)
        self.halt_at: tuple[str, int] | None = None
        self.turns = InputMerger(self.context, self.failures, self.undo, None, self.punctuate, self.one_by_one)
        for number, topic in enumerate(self.topics):
            self.inputs[topic] = Input(TopicPartition(topic, 0), self.entry(topic, number), next_offset=0)

    def entry(self, topic: str, number: int) -> SourceEntry:
        def decode(data: bytes) -> bytes:
            if data == UNDECODABLE:
                raise ValueError("cannot be read")
            return data

        def time(key: Any, value: Any) -> int | None:
            assert self.context.record is not None
            # A time that is the record's own is read from the context.
            return None if value == TIMELESS else cast(Any, self.context.record).time

        def forward(key: Any, value: Any, timestamp: int) -> None:
            record = cast(Record, self.context.record)
            self.seen.append((topic, key, value, timestamp, self.context.stream_time, record.offset()))
            if self.halt_at == (topic, record.offset()):
                self.pace.halt()
            if value == FAILING:
                raise OperatorFailed("operator") from ValueError("it fails")

        extract: Callable[[Any, Any], int | None] | None = time if topic == "b" else None
        return SourceEntry(
            topic, topic, int, decode, extract, forward, self.policy, "earliest", precedence=(True, number, 0)
        )

    def punctuate(self, time_ms: int) -> None:
        self.seen.append(("punctuated", time_ms))
        self.context.schedules.next_stream_ms = time_ms + 7

    def come(self, records: list[Record]) -> None:
        for record in records:
            self.inputs[record.of].buffer.append(cast(Message, record))

    def process(self, size: int, halt_at: tuple[str, int] | None, empty: frozenset[str]) -> object:
        """What a batch ends with: how many there were, or why it ended."""
        self.pace.begin()
        self.pace.size, self.halt_at = size, halt_at
        try:
            return self.turns.process(
                list(self.inputs.values()), self.pace, lambda input_: input_.partition.topic in empty
            )
        except ProcessingError as error:
            return str(error)

    def positions(self) -> list[int | None]:
        return [input_.next_offset for input_ in self.inputs.values()]


VALUES = st.sampled_from([b"v", b"v", b"v", b"v", b"v", None, UNDECODABLE, FAILING, TIMELESS])


@st.composite
def scripts(draw: st.DrawFn, topics: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """By turns, records that come and batches that are processed."""
    offsets, times = dict.fromkeys(topics, 0), dict.fromkeys(topics, 0)
    steps: list[tuple[Any, ...]] = []
    for _ in range(draw(st.integers(1, 6))):
        come = []
        for topic in draw(st.lists(st.sampled_from(topics), max_size=25)):
            times[topic] += draw(st.integers(-3, 6))
            come.append(Record(topic, offsets[topic], draw(VALUES), times[topic]))
            offsets[topic] += 1
        halt_at = draw(st.sampled_from([None, *((record.of, record.at) for record in come)]))
        empty = draw(st.frozensets(st.sampled_from(topics)))
        steps.append((come, draw(st.integers(1, 30)), halt_at, empty))
    return steps


@pytest.mark.parametrize("topics", [TWO, TOPICS], ids=len)
@given(data=st.data(), policy=st.sampled_from([CONTINUE, FAIL]))
def test_runs_are_what_records_one_by_one_are(
    topics: tuple[str, ...], data: st.DataObject, policy: ErrorPolicy
) -> None:
    script = data.draw(scripts(topics))
    sides = [Side(one_by_one, policy, topics) for one_by_one in (False, True)]
    for side in sides:
        side.context.schedules.next_stream_ms = 5
    for come, size, halt_at, empty in script:
        ended = []
        for side in sides:
            side.come(come)
            ended.append(side.process(size, halt_at, empty))
        fast, slow = sides
        assert ended[0] == ended[1]
        assert fast.seen == slow.seen
        assert fast.failures.failed == slow.failures.failed
        assert fast.context.stream_time == slow.context.stream_time
        if not isinstance(ended[0], int):
            # The worker ends.
            return
        assert fast.positions() == slow.positions()
        assert [len(i.buffer) for i in fast.inputs.values()] == [len(i.buffer) for i in slow.inputs.values()]


def merged(records: dict[str, list[int]]) -> Iterator[tuple[str, int]]:
    """By time, and by the order of the topics where times are equal; each topic in its own order."""
    left = {topic: list(times) for topic, times in records.items()}
    while any(left.values()):
        topic = min((t for t in left if left[t]), key=lambda t: (left[t][0], TOPICS.index(t)))
        yield topic, left[topic].pop(0)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("topics", [TWO, TOPICS], ids=len)
@given(data=st.data())
def test_the_smallest_time_goes_first(one_by_one: bool, topics: tuple[str, ...], data: st.DataObject) -> None:
    records = data.draw(st.fixed_dictionaries({t: st.lists(st.integers(0, 30), max_size=20) for t in topics}))
    side = Side(one_by_one, FAIL, topics)
    for topic, times in records.items():
        side.come([Record(topic, number, b"v", time) for number, time in enumerate(times)])
    side.process(1_000, None, frozenset(TOPICS))
    assert [(seen[0], seen[3]) for seen in side.seen if seen[0] != "punctuated"] == list(merged(records))
    assert side.positions() == [len(records[topic]) for topic in topics]


def test_nobody_goes_on_without_an_input_that_is_waited_for() -> None:
    side = Side(False, FAIL)
    side.come([Record("a", number, b"v", number) for number in range(5)])
    side.come([Record("b", 0, b"v", 2)])
    assert side.process(100, None, frozenset("c")) == 4
    # The second input has nothing more: who comes after its last time has to wait.
    assert [seen[:2] for seen in side.seen] == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    assert side.process(100, None, frozenset("bc")) == 2
