"""Branches of a split: in order, or by name."""

from __future__ import annotations

from typing import Any

import pytest

from streamstate import Branches, Stream, Topology, TopologyError, serde
from streamstate.testing.driver.driver import TopologyTestDriver


def numbers(topology: Topology) -> Stream[str, int]:
    return topology.stream("in", key=serde.string(), value=serde.long())


def small(key: str, number: int) -> bool:
    return number < 10


def large(key: str, number: int) -> bool:
    return number > 99


def test_branches_by_name() -> None:
    topology = Topology("t")
    branches = numbers(topology).split(large=large, small=small)
    branches.large.to("large")
    branches["small"].to("small")
    branches.rest.to("rest")
    assert list(topology.build().nodes)[:5] == ["in", "in.split", "in.split.large", "in.split.small", "in.split.rest"]
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe_all([("a", 5), ("a", 50), ("a", 500)])
        assert [driver.output(topic).values() for topic in ("large", "small", "rest")] == [[500], [5], [50]]


def test_the_first_branch_that_holds_gets_the_record() -> None:
    topology = Topology("t")
    branches = numbers(topology).split(all_of_them=lambda key, number: True, small=small, name="by-size")
    everything, nothing, rest = branches
    everything.to("all")
    nothing.merge(rest).to("none")
    assert repr(branches) == "<Branches all_of_them, small, rest>"
    assert len(branches) == 3
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("a", 5)
        assert driver.output("all").values() == [5]
        assert driver.output("none").values() == []


def test_a_branch_that_does_not_exist() -> None:
    branches: Branches[str, int] = numbers(Topology("t")).split(small=small)
    with pytest.raises(AttributeError, match="there is no branch 'large', but small, rest"):
        branches.large  # noqa: B018
    with pytest.raises(KeyError, match="there is no branch 'large', but small, rest"):
        branches["large"]


@pytest.mark.parametrize(
    ("positional", "named", "said"),
    [
        ((), {}, "split after 'in' takes at least one predicate"),
        ((small,), {"large": large}, "either in order or by the names of branches, not both"),
        ((), {"rest": small}, "a branch cannot be called 'rest'"),
        ((), {"a b": small}, "name of a branch of split after 'in' 'a b' cannot be part of a topic name"),
        ((), {"small": 5}, "split after 'in' takes as small= a function of (key, value), not 5"),
        (
            (),
            {"small": lambda value: True},
            "split after 'in' takes as small= a function of (key, value), not <lambda>",
        ),
    ],
)
def test_what_is_refused(positional: tuple[Any, ...], named: dict[str, Any], said: str) -> None:
    split: Any = numbers(Topology("t")).split
    with pytest.raises(TopologyError) as refused:
        split(*positional, **named)
    assert said in str(refused.value)
