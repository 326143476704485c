"""Functions are looked at when the topology is built: how many parameters they take, and of which kind they are."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from streamstate import (
    ProcessingError,
    Processor,
    Topology,
    TopologyError,
    ValueTransformer,
    aggregates,
    event_time,
    serde,
    stores,
    windows,
)
from streamstate.functions import checked_function
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, LONG = serde.string(), serde.long()
MINUTE = timedelta(minutes=1)


def stream(topology: Topology, topic: str = "in") -> Any:
    return topology.stream(topic, key=TEXT, value=LONG)


def table(topology: Topology, topic: str = "rows") -> Any:
    return topology.table(topic, key=TEXT, value=LONG)


def grouped(topology: Topology) -> Any:
    return stream(topology).group_by_key()


def hourly(topology: Topology) -> Any:
    return grouped(topology).windowed_by(windows.tumbling(MINUTE))


def sessions(topology: Topology) -> Any:
    return grouped(topology).windowed_by(windows.session(MINUTE))


def by_group(topology: Topology) -> Any:
    return table(topology).group_by(two, key=TEXT)


def none() -> int:
    return 0


def one(value: Any) -> Any:
    return value


def two(key: Any, value: Any) -> Any:
    return value


def three(key: Any, value: Any, more: Any) -> Any:
    return more


def four(key: Any, value: Any, more: Any, most: Any) -> Any:
    return most


WITHIN = windows.join(MINUTE)

# Each operator that takes a function: how it is given one, what it takes, and the parameters it cannot take.
OPERATORS: dict[str, tuple[Callable[[Topology, Any], Any], str, Callable[..., Any]]] = {
    "filter": (lambda t, f: stream(t).filter(f), "filter after 'in' takes a function of (key, value)", one),
    "filter_not": (lambda t, f: stream(t).filter_not(f), "filter_not after 'in' takes a function of (key, value)", one),
    "map": (lambda t, f: stream(t).map(f), "map after 'in' takes a function of (key, value)", one),
    "map_values": (
        lambda t, f: stream(t).map_values(f),
        "map_values after 'in' takes a function of (value) or of (key, value)",
        three,
    ),
    "flat_map": (lambda t, f: stream(t).flat_map(f), "flat_map after 'in' takes a function of (key, value)", one),
    "flat_map_values": (
        lambda t, f: stream(t).flat_map_values(f),
        "flat_map_values after 'in' takes a function of (value) or of (key, value)",
        none,
    ),
    "select_key": (lambda t, f: stream(t).select_key(f), "select_key after 'in' takes a function of (key, value)", one),
    "peek": (lambda t, f: stream(t).peek(f), "peek after 'in' takes a function of (key, value)", three),
    "for_each": (lambda t, f: stream(t).for_each(f), "for_each after 'in' takes a function of (key, value)", one),
    "split": (lambda t, f: stream(t).split(two, f), "split after 'in' takes a function of (key, value)", one),
    "group_by": (
        lambda t, f: stream(t).group_by(f, key=TEXT),
        "group_by after 'in' takes a function of (key, value)",
        one,
    ),
    "timestamp": (
        lambda t, f: t.stream("in", timestamp=f),
        "the source of in takes as timestamp= a function of (key, value)",
        one,
    ),
    "timestamp of a table": (
        lambda t, f: t.table("in", timestamp=f),
        "the source of in takes as timestamp= a function of (key, value)",
        one,
    ),
    "event_time": (lambda t, f: event_time(f), "event_time takes a function of (key, value)", one),
    "to": (
        lambda t, f: stream(t).to(f),
        "to after 'in' takes a function of (key, value)",
        one,
    ),
    "map_batches": (
        lambda t, f: stream(t).map_batches(f),
        "map_batches after 'in' takes a function of (list of values) or of (list of keys, list of values)",
        three,
    ),
    "reduce": (lambda t, f: grouped(t).reduce(f), "reduce after 'in' takes a function of (aggregate, value)", three),
    "initializer": (
        lambda t, f: grouped(t).aggregate(initializer=f, aggregator=three, value=LONG),
        "aggregate after 'in' takes as initializer a function without parameters",
        one,
    ),
    "aggregator": (
        lambda t, f: grouped(t).aggregate(initializer=int, aggregator=f, value=LONG),
        "aggregate after 'in' takes as aggregator a function of (key, value, aggregate)",
        two,
    ),
    "cogroup": (
        lambda t, f: grouped(t).cogroup(f),
        "cogroup after 'in' takes a function of (key, value, aggregate)",
        two,
    ),
    "initializer of a cogroup": (
        lambda t, f: grouped(t).cogroup(three).aggregate(initializer=f, value=LONG),
        "cogroup after 'in' takes as initializer a function without parameters",
        one,
    ),
    "merger of a cogroup": (
        lambda t, f: (
            grouped(t)
            .cogroup(three)
            .windowed_by(windows.session(MINUTE))
            .aggregate(initializer=int, merger=f, value=LONG)
        ),
        "cogroup after 'in' takes as merger a function of (key, aggregate, aggregate)",
        two,
    ),
    "windowed reduce": (
        lambda t, f: hourly(t).reduce(f),
        "reduce after 'in' takes a function of (aggregate, value)",
        three,
    ),
    "windowed aggregator": (
        lambda t, f: hourly(t).aggregate(initializer=int, aggregator=f, value=LONG),
        "aggregate after 'in' takes as aggregator a function of (key, value, aggregate)",
        two,
    ),
    "merger": (
        lambda t, f: sessions(t).aggregate(initializer=int, aggregator=three, merger=f, value=LONG),
        "aggregate after 'in' takes as merger a function of (key, aggregate, aggregate)",
        two,
    ),
    "selector": (lambda t, f: aggregates.max(f), "a selector of aggregates takes a function of (value)", two),
    "update": (
        lambda t, f: grouped(t).aggregate(n=aggregates.Aggregate("mine", 0, f, one)),
        "aggregate after 'in', n=mine takes as update= a function of (state, value)",
        one,
    ),
    "table filter": (
        lambda t, f: table(t).filter(f),
        "filter after 'rows.table' takes a function of (key, value)",
        one,
    ),
    "table map_values": (
        lambda t, f: table(t).map_values(f),
        "map_values after 'rows.table' takes a function of (value) or of (key, value)",
        three,
    ),
    "table group_by": (
        lambda t, f: table(t).group_by(f, key=TEXT),
        "group_by after 'rows.table' takes a function of (key, value)",
        one,
    ),
    "select": (
        lambda t, f: table(t).group_by(two, key=TEXT, select=f, value=LONG),
        "group_by after 'rows.table' takes as select= a function of (key, value)",
        one,
    ),
    "adder": (
        lambda t, f: by_group(t).reduce(f, two),
        "reduce after 'rows.table.group_by' takes as adder a function of (aggregate, value)",
        three,
    ),
    "subtractor": (
        lambda t, f: by_group(t).aggregate(initializer=int, adder=three, subtractor=f, value=LONG),
        "aggregate after 'rows.table.group_by' takes as subtractor a function of (key, value, aggregate)",
        two,
    ),
    "join of streams": (
        lambda t, f: stream(t).join(stream(t, "other"), f, within=WITHIN),
        "join after 'in' takes a function of (left value, right value) or of (key, left value, right value)",
        one,
    ),
    "outer join of streams": (
        lambda t, f: stream(t).outer_join(stream(t, "other"), f, within=WITHIN),
        "outer_join after 'in' takes a function of (left value, right value) or of (key, left value, right value)",
        four,
    ),
    "join with a table": (
        lambda t, f: stream(t).left_join(table(t), f),
        "left_join after 'in' takes a function of (value, row's value) or of (key, value, row's value)",
        one,
    ),
    "join with a global table": (
        lambda t, f: stream(t).join(t.global_table("g", key=TEXT, value=LONG), f, on=two),
        "join after 'in' takes a function of (value, row's value) or of (key, value, row's value)",
        one,
    ),
    "on": (
        lambda t, f: stream(t).join(t.global_table("g", key=TEXT, value=LONG), two, on=f),
        "join after 'in' takes as on= a function of (key, value)",
        one,
    ),
    "join of tables": (
        lambda t, f: table(t).join(table(t, "other"), f),
        "join after 'rows.table' takes a function of (left value, right value) or of (key, left value, right value)",
        one,
    ),
    "foreign key": (
        lambda t, f: table(t).join(table(t, "other"), two, foreign_key=f, name="j"),
        "join after 'rows.table' takes as foreign_key= a function of (key, value)",
        one,
    ),
    "process": (
        lambda t, f: stream(t).process(f),
        "process after 'in' takes a Processor subclass or a function without parameters that makes a new Processor",
        one,
    ),
    "transform_values": (
        lambda t, f: table(t).transform_values(f),
        "transform_values after 'rows.table' takes a ValueTransformer subclass or a function without parameters",
        one,
    ),
}
# What these take may be something else, such as a name.
NOT_ONLY_FUNCTIONS = ("selector", "timestamp", "timestamp of a table", "event_time", "to")
# Where a generator function gives what is asked for.
YIELDS = ("flat_map", "flat_map_values")


async def coroutine(*values: Any) -> Any:
    return values


def generator(*values: Any) -> Any:
    yield from values


async def stream_of(*values: Any) -> Any:
    yield values


class Plain:
    """Cannot be called."""


class AsyncCalls:
    async def __call__(self, *values: Any) -> Any:
        return values


def refusal(build: Callable[[Topology, Any], Any], function: Any) -> str:
    with pytest.raises(TopologyError) as refused:
        build(Topology("t"), function)
    return str(refused.value)


@pytest.mark.parametrize("name", OPERATORS)
def test_another_number_of_parameters(name: str) -> None:
    build, takes, function = OPERATORS[name]
    said = refusal(build, function)
    assert said.startswith(takes), said
    shown = {none: "()", one: "(value)", two: "(key, value)"}.get(function, "(key, value, more")
    assert f'not {function.__name__} (File "{__file__}", line {function.__code__.co_firstlineno}), which takes' in said
    assert shown in said


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    ("function", "what"),
    [
        (coroutine, f'the coroutine function coroutine (File "{__file__}", line'),
        (partial(coroutine), "the coroutine function coroutine (File"),
        (AsyncCalls(), "the coroutine function __call__ (File"),
        (stream_of, "the asynchronous generator function stream_of (File"),
        (generator, "the generator function generator (File"),
    ],
)
def test_functions_of_another_kind(name: str, function: Any, what: str) -> None:
    build, takes, _ = OPERATORS[name]
    if function is generator and name in YIELDS:
        build(Topology("t"), function)
        return
    said = refusal(build, function)
    assert said.startswith(takes), said
    assert f"not {what}" in said


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in NOT_ONLY_FUNCTIONS])
@pytest.mark.parametrize("given", [5, Plain(), None, ["f"]])
def test_what_is_no_function(name: str, given: Any) -> None:
    if given is None and name in ("on", "foreign key", "select"):
        return  # It is the same as leaving it out.
    build, takes, _ = OPERATORS[name]
    assert refusal(build, given).startswith(takes)


@pytest.mark.parametrize(
    "function",
    [
        str.upper, int, len, str, print, operator.itemgetter("a"), operator.attrgetter("a"), partial(two, 1), bytes.hex,
        lambda value, more=5: value, lambda *values: values, lambda value, *, flag=True: value, float,
    ],
)  # fmt: skip
def test_functions_of_the_value(function: Any) -> None:
    assert checked_function(function, "here", "value", "key, value") == 0


@pytest.mark.parametrize(
    "function", [two, lambda key, value: key, operator.add, partial(three, 1), lambda key, value, more=1: key]
)
def test_functions_of_key_and_value(function: Any) -> None:
    assert checked_function(function, "here", "value", "key, value") == 1


def test_a_parameter_that_nobody_gives() -> None:
    def needs(value: Any, *, flag: bool) -> Any:
        return value, flag

    assert "which takes (value, *, flag)" in refusal(lambda t, f: stream(t).map_values(f), needs)


# -- map_async ---------------------------------------------------------------------------------------------


def says_so(key: Any, value: Any) -> Awaitable[Any]:
    return coroutine(key, value)


@pytest.mark.parametrize(
    "function",
    [
        coroutine,
        partial(coroutine, 1),
        AsyncCalls(),
        lambda value: coroutine(value),
        lambda key, value: coroutine(key),
        says_so,
    ],
)
def test_what_map_async_takes(function: Any) -> None:
    stream(Topology("t")).map_async(function)


@pytest.mark.parametrize("function", [one, two, generator, stream_of, len, int, Plain(), 5, partial(one)])
def test_what_map_async_refuses(function: Any) -> None:
    said = refusal(lambda t, f: stream(t).map_async(f), function)
    assert said.startswith("map_async after 'in' takes a coroutine function of (value) or of (key, value), not ")


def test_the_parameters_of_map_async() -> None:
    async def of_three(one: Any, two: Any, three: Any) -> Any:
        return one, two, three

    said = refusal(lambda t, f: stream(t).map_async(f), of_three)
    assert "which takes (one, two, three)" in said


# -- classes -----------------------------------------------------------------------------------------------


class NeedsMore(Processor[Any, Any, Any, Any]):
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def process(self, key: Any, value: Any) -> None: ...


class TakesOne(Processor[Any, Any, Any, Any]):
    def process(self, value: Any) -> None: ...  # type: ignore[override]


class Awaits(Processor[Any, Any, Any, Any]):
    async def process(self, key: Any, value: Any) -> None: ...  # type: ignore[override]


class Yields(ValueTransformer[Any, Any, Any]):
    def transform(self, key: Any, value: Any) -> Any:
        yield value


class Misspelt(Processor[Any, Any, Any, Any]):
    def proces(self, key: Any, value: Any) -> None: ...


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda t: stream(t).process(NeedsMore), "NeedsMore, which takes (limit): pass lambda: NeedsMore(...)"),
        (lambda t: stream(t).process(NeedsMore(5)), "not one NeedsMore for all tasks: pass the class, or lambda:"),
        (lambda t: stream(t).process(TakesOne), "TakesOne.process takes a function of (key, value), not process (File"),
        (lambda t: stream(t).process(Awaits), "Awaits.process takes a function of (key, value), not the coroutine"),
        (
            lambda t: table(t).transform_values(Yields),
            "Yields.transform takes a function of (key, value), not the gener",
        ),
        (lambda t: stream(t).process(Misspelt), "Misspelt does not define process(self, key, value)"),
        (lambda t: stream(t).process(Plain), "takes a Processor subclass"),
    ],
)
def test_classes_that_cannot_be_used(build: Callable[[Topology], Any], said: str) -> None:
    with pytest.raises(TopologyError) as refused:
        build(Topology("t"))
    assert said in str(refused.value)


class NoParameter(Processor[Any, Any, Any, Any]):
    def init(self, context: Any) -> None:
        super().init(context)
        context.schedule(MINUTE, "wall_clock", lambda: None)

    def process(self, key: Any, value: Any) -> None: ...


class OneParameter(Processor[Any, Any, Any, Any]):
    def init(self, context: Any) -> None:
        super().init(context)
        context.timers("reminders", lambda key: None)

    def process(self, key: Any, value: Any) -> None: ...


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (
            lambda t: stream(t).process(lambda: None),
            "operator 'in.process': the supplier made None, which has no init(): it has to return a new Processor",
        ),
        (
            lambda t: stream(t).process(lambda: Plain()),
            "which has no init(): it has to return a new Processor",
        ),
        (
            lambda t: stream(t).process_values(lambda: TakesOne()),
            "operator 'in.process_values': TakesOne.process takes a function of (key, value), not process (File",
        ),
        (
            lambda t: table(t).transform_values(lambda: Yields()),
            "operator 'rows.table.transform_values': Yields.transform takes a function of (key, value), not the gener",
        ),
        (
            lambda t: stream(t).process(NoParameter),
            "schedule() of processor 'in.process' takes a function of (time in ms), not <lambda>",
        ),
        (
            lambda t: stream(t).process(OneParameter, stores=[stores.timers("reminders", key=TEXT)]),
            "timers() of processor 'in.process' takes a function of (key, time in ms), not <lambda>",
        ),
    ],
)
def test_what_shows_only_when_the_task_begins(build: Callable[[Topology], Any], said: str) -> None:
    topology = Topology("t")
    build(topology)
    with pytest.raises(TopologyError) as refused:
        TopologyTestDriver(topology)
    assert said in str(refused.value)


def test_a_lambda_that_returns_nothing_to_await() -> None:
    topology = Topology("t")
    stream(topology).map_async(lambda key, value: value)
    with TopologyTestDriver(topology) as driver, pytest.raises(ProcessingError) as failed:
        driver.input("in").pipe("a", 5)
    assert "the function of map_async returned int, which cannot be awaited" in str(failed.value)
