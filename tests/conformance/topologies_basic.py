"""Stateless operators."""

from __future__ import annotations

from streamstate import Topology, serde
from tests.conformance.cases import Case, builds

NUMBER = serde.integer()
TEXT = serde.string()


@builds("KStreamSplitTest#testKStreamSplit")
def split(case: Case) -> Topology:
    topology = Topology("split")
    numbers = topology.stream("topic", key=NUMBER, value=TEXT)
    by_two, by_three, by_five, _ = numbers.split(
        lambda key, value: key % 2 == 0, lambda key, value: key % 3 == 0, lambda key, value: key % 5 == 0
    )
    by_two.to("x2")
    by_three.to("x3")
    by_five.to("x5")
    return topology
