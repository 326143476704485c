"""What the builder makes of each operator: specs, parents, sub-topologies, serdes carried along."""

from __future__ import annotations

from typing import Any

import pytest

from streamstate import Processor, Stream, Topology, TopologyError, aggregates, dead_letter, serde, stores
from streamstate.graph.error_policy import CONTINUE, ErrorPolicy
from streamstate.graph.queries import feeding_sources, sink_topics
from streamstate.operators.aggregate.spec import Aggregate
from streamstate.operators.process.spec import Process
from streamstate.operators.stateless.spec import Branch, Filter, Peek
from streamstate.operators.table.spec import ToStream
from streamstate.operators.topics.spec import Sink, Source
from streamstate.state.spec import StoreSpec


class Forward(Processor[Any, Any, Any, Any]):
    def process(self, key: Any, value: Any) -> None:
        self.context.forward(key, value)


def always(key: object, value: object) -> bool:
    return True


def described(topology: Topology) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {node.name: (type(node.spec).__name__, node.parents) for node in topology.build().nodes.values()}


def sink_of(topology: Topology, topic: str) -> Sink:
    [sink] = [
        node.spec
        for node in topology.build().nodes.values()
        if isinstance(node.spec, Sink) and node.spec.topic == topic
    ]
    return sink


def test_each_operator_becomes_a_node_after_its_parent() -> None:
    topology = Topology("t")
    lines = topology.stream("lines")
    mapped = lines.filter(always).filter_not(always).map(lambda k, v: (k, v), name="mapped").map_values(len)
    mapped.flat_map(lambda k, v: [(k, v)]).peek(print)
    lines.flat_map_values(lambda value: [value]).select_key(lambda k, v: k).for_each(print)
    lines.process(Forward)
    lines.to(lambda key, value: "chosen")

    assert described(topology) == {
        "lines": ("Source", ()),
        "lines.filter": ("Filter", ("lines",)),
        "lines.filter.filter_not": ("Filter", ("lines.filter",)),
        "mapped": ("Map", ("lines.filter.filter_not",)),
        "mapped.map_values": ("MapValues", ("mapped",)),
        "mapped.map_values.flat_map": (
            "FlatMap",
            ("mapped.map_values",),
        ),
        "mapped.map_values.flat_map.peek": (
            "Peek",
            ("mapped.map_values.flat_map",),
        ),
        "lines.flat_map_values": ("FlatMapValues", ("lines",)),
        "lines.flat_map_values.select_key": ("SelectKey", ("lines.flat_map_values",)),
        "lines.flat_map_values.select_key.for_each": ("Peek", ("lines.flat_map_values.select_key",)),
        "lines.process": ("Process", ("lines",)),
        "lines.to": ("Sink", ("lines",)),
    }
    nodes = topology.build().nodes
    negated = nodes["lines.filter.filter_not"].spec
    last = nodes["lines.flat_map_values.select_key.for_each"].spec
    assert isinstance(negated, Filter)
    assert negated.negate
    assert isinstance(last, Peek)
    assert not last.forward


def test_the_source_takes_its_settings_and_defaults_to_bytes() -> None:
    topology = Topology("t")
    topology.stream(
        ["south", "north"], value=serde.json(), timestamp="at_ms", reset="latest", on_error=dead_letter("bad")
    )
    [node] = topology.build().nodes.values()

    assert node.name == "north-south"
    assert node.spec == Source(
        ("south", "north"),
        serde.bytes_(),
        serde.json(),
        timestamp="at_ms",
        reset="latest",
        on_error=ErrorPolicy("dead_letter", "bad"),
    )


def test_split_has_a_branch_for_each_predicate_and_one_for_the_rest() -> None:
    topology = Topology("t")
    first, second, rest = topology.stream("numbers").split(lambda k, v: True, lambda k, v: False)
    for branch, topic in ((first, "first"), (second, "second"), (rest, "rest")):
        branch.to(topic)
    graph = topology.build()

    assert graph.children("numbers.split") == (
        "numbers.split.branch",
        "numbers.split.branch-2",
        "numbers.split.rest",
    )
    branches = [graph.nodes[name].spec for name in graph.children("numbers.split")]
    assert branches == [Branch(0), Branch(1), Branch(2)]


def test_merge_joins_sub_topologies_and_keeps_equal_serdes_only() -> None:
    topology = Topology("t")
    left = topology.stream("left", key=serde.string(), value=serde.long())
    right: Stream[str, Any] = topology.stream("right", key=serde.string(), value=serde.json())
    merged = right.merge(left)
    graph = topology.build()

    assert [part.name for part in graph.subtopologies] == ["left"]
    assert graph.nodes["right.merge"].parents == ("right", "left")
    with pytest.raises(TopologyError, match=r"to after 'right.merge' needs the serde of the value"):
        merged.to("out")
    merged.to("out", value=serde.json())
    assert sink_of(topology, "out").key is serde.string()


def test_group_by_goes_through_a_repartition_topic_named_after_the_store() -> None:
    topology = Topology("t")
    flights = topology.stream("flights", key=serde.string(), value=serde.json(), on_error="continue")
    grouped = flights.group_by(lambda key, flight: flight["origin"], key=serde.long())
    grouped.count(store="counts").to_stream(emit="commit").to("out")
    graph = topology.build()

    assert described(topology) == {
        "flights": ("Source", ()),
        "flights.group_by": ("SelectKey", ("flights",)),
        "counts-repartition-sink": ("Sink", ("flights.group_by",)),
        "counts-repartition": ("Source", ()),
        "counts.count": ("Count", ("counts-repartition",)),
        "counts.count.to_stream": ("ToStream", ("counts.count",)),
        "counts.count.to_stream.to": ("Sink", ("counts.count.to_stream",)),
    }
    assert graph.nodes["counts-repartition-sink"].spec == Sink(
        "counts-repartition", serde.long(), serde.json(), internal=True
    )
    assert graph.nodes["counts-repartition"].spec == Source(
        ("counts-repartition",), serde.long(), serde.json(), on_error=CONTINUE, internal=True
    )
    assert graph.nodes["counts.count.to_stream"].spec == ToStream(serde.long(), "commit", serde.long())
    assert graph.stores == {"counts": StoreSpec("counts", serde.long(), serde.long(), content="count")}
    first, second = graph.subtopologies
    assert (first.name, first.source_topics, first.repartition_sinks, first.stores) == (
        "flights",
        ("flights",),
        ("counts-repartition",),
        (),
    )
    assert (second.name, second.repartition_sources, second.stores) == (
        "counts-repartition",
        ("counts-repartition",),
        ("counts",),
    )
    out = sink_of(topology, "out")
    assert (out.key, out.value) == (serde.long(), serde.long())


def test_two_aggregations_of_one_grouping_have_a_repartition_topic_each() -> None:
    topology = Topology("t")
    grouped = topology.stream("words", value=serde.string()).group_by(lambda key, word: word, key=serde.string())
    grouped.count(store="counts")
    grouped.reduce(max, store="longest")
    graph = topology.build()

    assert [part.name for part in graph.subtopologies] == ["words", "counts-repartition", "longest-repartition"]
    assert graph.subtopologies[0].repartition_sinks == ("counts-repartition", "longest-repartition")


@pytest.mark.parametrize(
    ("change", "repartitions"),
    [
        (lambda stream: stream, False),
        (lambda stream: stream.filter(always).peek(print).filter_not(always), False),
        (lambda stream: stream.map_values(str).flat_map_values(str.split), False),
        (lambda stream: stream.split(always)[1], False),
        (lambda stream: stream.map(lambda k, v: (k, v)), True),
        (lambda stream: stream.flat_map(lambda k, v: [(k, v)]), True),
        (lambda stream: stream.select_key(lambda k, v: k), True),
        (lambda stream: stream.process(Forward), True),
        (lambda stream: stream.select_key(lambda k, v: k).filter(always), True),
        (lambda stream: stream.filter(always).merge(stream.map(lambda k, v: (k, v))), True),
        (lambda stream: stream.select_key(lambda k, v: k).repartition(name="r", key=serde.string()), False),
    ],
)  # fmt: skip
def test_group_by_key_repartitions_only_when_the_key_may_have_changed(change: Any, repartitions: bool) -> None:
    topology = Topology("t")
    stream = change(topology.stream("in", key=serde.string(), value=serde.json()))
    stream.group_by_key(key=serde.string(), value=serde.json()).count(store="counts")

    assert ("counts-repartition" in topology.build().nodes) is repartitions


def test_repartition_ends_one_sub_topology_and_starts_another() -> None:
    topology = Topology("t")
    topology.stream("in", key=serde.string()).repartition(name="wide", partitions=8).to("out")
    graph = topology.build()

    sink = graph.nodes["wide-repartition-sink"].spec
    assert isinstance(sink, Sink)
    assert (sink.topic, sink.partitions, sink.internal, sink.key) == ("wide-repartition", 8, True, serde.string())
    assert [part.name for part in graph.subtopologies] == ["in", "wide-repartition"]
    assert sink_of(topology, "out").key is serde.string()


def test_a_shared_store_puts_its_users_into_one_sub_topology() -> None:
    topology = Topology("t")
    shared = stores.key_value("shared", key=serde.string(), value=serde.json())
    topology.stream("left").process(Forward, stores=[shared])
    topology.stream("apart").for_each(print)
    topology.stream("right").process(Forward, stores=["shared", shared])
    graph = topology.build()

    assert [(part.index, part.name, part.source_topics, part.stores) for part in graph.subtopologies] == [
        (0, "left", ("left", "right"), ("shared",)),
        (1, "apart", ("apart",), ()),
    ]
    process = graph.nodes["right.process"].spec
    assert isinstance(process, Process)
    assert process.stores == ("shared",)
    assert feeding_sources(graph, "shared") == ("left", "right")


def test_stores_can_be_added_to_the_topology_and_named() -> None:
    topology = Topology("t")
    topology.add_store(stores.key_value("cache", key=serde.string(), value=serde.json(), changelog=False))
    topology.stream("in").process(lambda: Forward(), stores=["cache"], on_error="continue", name="look")
    graph = topology.build()

    process = graph.nodes["look"].spec
    assert isinstance(process, Process)
    assert (process.stores, process.on_error) == (("cache",), CONTINUE)
    assert not graph.stores["cache"].changelog


def test_two_functions_aggregate_into_a_store_of_the_given_serde() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=serde.string(), value=serde.long())
    stream.group_by_key().aggregate(
        initializer=lambda: 0, aggregator=lambda key, value, total: total + value, value=serde.long(), store="s"
    )
    graph = topology.build()

    spec = graph.nodes["s.aggregate"].spec
    assert isinstance(spec, Aggregate)
    assert spec.result is None
    assert spec.aggregator("a", 5, spec.initializer()) == 5
    assert graph.stores["s"].value is serde.long()


def test_named_aggregates_keep_a_list_of_states_ordered_by_name() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=serde.string(), value=serde.json())
    stream.group_by_key().aggregate(
        store="s", value=aggregates.sum("x"), mean=aggregates.mean("x"), departures=aggregates.count()
    )
    graph = topology.build()
    spec, kept = graph.nodes["s.aggregate"].spec, graph.stores["s"].value

    assert isinstance(spec, Aggregate)
    assert spec.result is not None
    start = spec.initializer()
    states = start
    for x in (1, 4):
        states = spec.aggregator("key", {"x": x}, states)
    assert states == [2, [5, 2], 5]
    assert list(spec.result(states).items()) == [("value", 5), ("mean", 2.5), ("departures", 2)]
    assert start == spec.initializer() == [0, [0, 0], 0], "a state must not be changed in place"
    assert kept.immutable
    assert kept.deserialize(kept.serialize(states)) == states


def test_named_aggregates_of_another_shape_in_the_store_are_refused() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=serde.string(), value=serde.json())
    stream.group_by_key().aggregate(n=aggregates.count(), store="s")
    spec = topology.build().nodes["s.aggregate"].spec

    assert isinstance(spec, Aggregate)
    with pytest.raises(Exception, match=r"store 's' holds 2 aggregates per key, but the topology has 1 \(n\)"):
        spec.aggregator("key", {}, [1, 2])


def test_a_table_of_named_aggregates_shows_no_serde_that_its_store_has() -> None:
    topology = Topology("t")
    table = topology.stream("in", key=serde.string()).group_by_key().aggregate(n=aggregates.count(), store="s")
    with pytest.raises(TopologyError, match="needs the serde of the value"):
        table.to_stream().to("out")


def test_build_is_cached_until_something_is_added() -> None:
    topology = Topology("t")
    stream = topology.stream("in")
    first = topology.build()
    assert topology.build() is first
    stream.to("out")
    assert topology.build() is not first
    assert list(first.nodes) == ["in"], "a graph that was handed out must not change"


def test_parents_come_before_children() -> None:
    topology = Topology("t")
    one, two = topology.stream("one"), topology.stream("two")
    two.merge(one.filter(always)).to("out")
    graph = topology.build()
    for nodes in (list(graph.nodes), list(graph.subtopologies[0].nodes)):
        for name in nodes:
            assert all(nodes.index(parent) < nodes.index(name) for parent in graph.nodes[name].parents)


def test_sink_topics_are_those_known_by_name() -> None:
    topology = Topology("t")
    stream = topology.stream("in", on_error=dead_letter("bad"))
    stream.to("out")
    stream.to("out", name="again")
    stream.to(lambda key, value: "chosen")
    stream.repartition(name="r")
    stream.process(Forward, on_error=dead_letter("worse"))
    assert sink_topics(topology.build()) == ("out", "bad", "worse")


def test_policies_that_differ_end_at_a_merge() -> None:
    topology = Topology("t")
    tolerant = topology.stream("a", on_error="continue")
    strict = topology.stream("b")
    tolerant.merge(strict).repartition(name="both")
    tolerant.repartition(name="one")
    nodes = topology.build().nodes
    policies = [nodes[f"{name}-repartition"].spec.on_error.action for name in ("both", "one")]  # type: ignore[union-attr]
    assert policies == ["fail", "continue"]
