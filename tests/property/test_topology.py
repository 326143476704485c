"""Laws of names and of partition counts, over random topologies."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamstate import Stream, Topology, TopologyError, serde
from streamstate.graph.node import Graph
from streamstate.graph.plan import TopicPlan, check_existing, plan_topics
from streamstate.graph.queries import feeding_sources
from streamstate.operators.topics.spec import Source

TEXT = serde.string()
OPERATORS = ["filter", "select_key", "merge", "repartition", "count", "source"]
# Each step: an operator, and which of the streams made so far it applies to.
STEPS = st.lists(st.tuples(st.sampled_from(OPERATORS), st.integers(0, 30)), max_size=12)
COUNTS = st.lists(st.integers(1, 6), min_size=16, max_size=16)


def apply(topology: Topology, steps: list[tuple[str, int]], prefix: str) -> None:
    """Follow ``steps``; what they make is named by ``prefix`` and the step wherever it outlives a process."""
    streams: list[Stream[Any, Any]] = [topology.stream(f"{prefix}0", key=TEXT, value=TEXT)]
    for number, (operator, choice) in enumerate(steps, start=1):
        stream = streams[choice % len(streams)]
        other = streams[(choice + 1) % len(streams)]
        name = f"{prefix}{number}"
        if operator == "filter":
            streams.append(stream.filter(lambda key, value: True))
        elif operator == "select_key":
            streams.append(stream.select_key(lambda key, value: value))
        elif operator == "merge" and stream is not other:
            streams.append(stream.merge(other))
        elif operator == "repartition":
            streams.append(stream.repartition(name=name, key=TEXT, value=TEXT, partitions=choice % 3 or None))
        elif operator == "count":
            stream.group_by_key(key=TEXT, value=TEXT).count(store=name)
        elif operator == "source":
            streams.append(topology.stream(name, key=TEXT, value=TEXT))


def built(*parts: tuple[str, list[tuple[str, int]]]) -> Graph:
    topology = Topology("t")
    for prefix, steps in parts:
        apply(topology, steps, prefix)
    return topology.build()


def planned(graph: Graph, counts: list[int]) -> TopicPlan | None:
    topics = [topic for part in graph.subtopologies for topic in part.source_topics]
    try:
        return plan_topics(graph, "app", dict(zip(sorted(topics), counts, strict=False)))
    except TopologyError:
        return None


@given(STEPS, STEPS, st.booleans())
def test_a_part_has_the_same_names_whatever_else_is_in_the_topology(
    steps: list[tuple[str, int]], others: list[tuple[str, int]], others_first: bool
) -> None:
    alone = built(("a", steps))
    parts = [("b", others), ("a", steps)] if others_first else [("a", steps), ("b", others)]
    together = built(*parts)

    assert [node for node in together.nodes.values() if node.name.startswith("a")] != []
    assert {name: node.parents for name, node in together.nodes.items() if name.startswith("a")} == {
        name: node.parents for name, node in alone.nodes.items()
    }
    own = [part for part in together.subtopologies if part.name.startswith("a")]
    assert [(part.name, part.nodes, part.stores) for part in own] == [
        (part.name, part.nodes, part.stores) for part in alone.subtopologies
    ]


@given(STEPS)
def test_sub_topologies_partition_the_nodes_and_no_edge_crosses(steps: list[tuple[str, int]]) -> None:
    graph = built(("a", steps))
    home = {name: part.index for part in graph.subtopologies for name in part.nodes}

    assert sorted(name for part in graph.subtopologies for name in part.nodes) == sorted(graph.nodes)
    assert all(home[parent] == home[node.name] for node in graph.nodes.values() for parent in node.parents)
    assert sorted(topic for part in graph.subtopologies for topic in part.repartition_sources) == sorted(
        topic for part in graph.subtopologies for topic in part.repartition_sinks
    )


@given(STEPS, COUNTS)
def test_every_plan_puts_equal_keys_of_a_store_into_one_task(steps: list[tuple[str, int]], counts: list[int]) -> None:
    graph = built(("a", steps))
    plan = planned(graph, counts)
    if plan is None:
        return
    topics = sorted(topic for part in graph.subtopologies for topic in part.source_topics)
    count_of = dict(zip(topics, counts, strict=False))
    count_of |= {name: topic.partitions for name, topic in plan.repartitions.items()}
    for part in graph.subtopologies:
        read = part.source_topics + part.repartition_sources
        assert plan.tasks[part.name] == max(count_of[name] for name in read)
        for store in part.stores:
            feeding = [graph.nodes[name].spec for name in feeding_sources(graph, store)]
            counts_met = {count_of[topic] for spec in feeding if isinstance(spec, Source) for topic in spec.topics}
            assert len(counts_met) == 1
            assert plan.changelogs[store].partitions == plan.tasks[part.name]
    check_existing(plan, {topic.name: topic.partitions for topic in plan.internal})
    for topic in plan.internal:
        assert topic.inputs or topic.asked_by, "a refusal must be able to say where the number comes from"
