"""A failure in a user's function names the line of the function, whatever lies between it and the error."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from streamstate import ProcessingError, Processor, Topology, serde
from streamstate.engine.task.user_code import raised_at
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()


def line_of(text: str) -> int:
    """The line of this file on which a text stands for the first time."""
    lines = inspect.getsource(inspect.getmodule(line_of)).splitlines()  # type: ignore[arg-type]
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def parsed(value: str) -> Any:
    return json.loads(value)  # the line of parsed


async def awaited(key: str, value: str) -> Any:
    return json.loads(value)  # the line of awaited


class Parses(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        json.loads(value)  # the line of the processor


CASES: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "a lambda": (lambda s: s.map_values(lambda value: 1 // 0), "value: 1 // 0", "<lambda>"),
    "a function that calls a library": (lambda s: s.map_values(parsed), "the line of parsed", "parsed"),
    "a predicate": (lambda s: s.filter(lambda key, value: [][1]), "[][1]", "<lambda>"),
    "a processor": (lambda s: s.process(Parses), "the line of the processor", "process"),
    "a coroutine": (lambda s: s.map_async(awaited), "the line of awaited", "awaited"),
    "a batch": (lambda s: s.map_batches(lambda batch: [{}[0] for _ in batch]), "{}[0]", "<listcomp>"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_line_of_a_function_that_fails(case: str) -> None:
    build, text, function = CASES[case]
    topology = Topology("t")
    build(topology.stream("in", key=TEXT, value=TEXT))
    with TopologyTestDriver(topology) as driver, pytest.raises(ProcessingError) as failure:
        driver.input("in").pipe("a", "{")
    # Since Python 3.12 a comprehension is no function of its own.
    names = {function, "<lambda>"} if function == "<listcomp>" else {function}
    said = [f'File "{__file__}", line {line_of(text)}, in {name}' for name in names]
    assert any(line in str(failure.value) for line in said), str(failure.value)
    assert "operator 'in." in str(failure.value)
    assert "topic 'in', partition 0, offset 0, key b'a'" in str(failure.value)


def test_an_error_of_a_built_in_function_has_no_line() -> None:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).map_values(int)
    with TopologyTestDriver(topology) as driver, pytest.raises(ProcessingError) as failure:
        driver.input("in").pipe("a", "x")
    assert "invalid literal for int()" in str(failure.value)
    assert "File" not in str(failure.value)


def test_the_line_of_what_caused_an_error() -> None:
    def fails() -> None:
        raise ValueError("the first")  # the line of the cause

    try:
        fails()
    except ValueError as error:
        later = RuntimeError("the second")
        later.__cause__ = error
    assert raised_at(later) == f'File "{__file__}", line {line_of("the line of the cause")}, in fails'
    assert raised_at(None) is None
