"""Generated names: paths, stable when unrelated operators come and go, and refused where they could shift."""

from __future__ import annotations

import pytest

from streamstate import Processor, Topology, TopologyError, serde
from streamstate.graph.names import MAX_GENERATED, shortened


def always(key: object, value: object) -> bool:
    return True


def word_count(*, with_unrelated: bool) -> Topology:
    topology = Topology("t")
    if with_unrelated:
        topology.stream("earlier", key=serde.string()).group_by_key().count()
    lines = topology.stream("lines", value=serde.string())
    if with_unrelated:
        lines.peek(print)
        lines.map_values(len).filter(lambda key, length: length > 3, name="long").to("lengths", value=serde.long())
    words = lines.flat_map_values(str.split)
    if with_unrelated:
        lines.flat_map_values(list, name="letters").to("letters", value=serde.string())
        words.filter(lambda key, word: bool(word)).for_each(print)
    counts = words.group_by(lambda key, word: word, key=serde.string(), value=serde.string()).count()
    if with_unrelated:
        words.group_by(lambda key, word: word, key=serde.string(), value=serde.string(), name="again").count(store="x")
    counts.to_stream().repartition().to("word-counts")
    if with_unrelated:
        counts.to_stream(emit="commit").process(Processor)
        topology.stream("later").to("elsewhere")
    return topology


def test_adding_unrelated_operators_changes_no_name() -> None:
    plain = word_count(with_unrelated=False).build()
    extended = word_count(with_unrelated=True).build()

    for name, node in plain.nodes.items():
        assert extended.nodes[name].parents == node.parents
        assert type(extended.nodes[name].spec) is type(node.spec)
    assert set(plain.stores) <= set(extended.stores)
    assert {part.name for part in plain.subtopologies} <= {part.name for part in extended.subtopologies}
    for part in plain.subtopologies:
        [same] = [other for other in extended.subtopologies if other.name == part.name]
        assert set(part.repartition_sinks) <= set(same.repartition_sinks)
        assert (part.source_topics, part.repartition_sources) == (same.source_topics, same.repartition_sources)


def test_names_are_paths() -> None:
    assert list(word_count(with_unrelated=False).build().nodes) == [
        "lines",
        "lines.flat_map_values",
        "lines.flat_map_values.group_by",
        "lines.flat_map_values.group_by.count-repartition-sink",
        "lines.flat_map_values.group_by.count-repartition",
        "lines.flat_map_values.group_by.count",
        "lines.flat_map_values.group_by.count.to_stream",
        "lines.flat_map_values.group_by.count.to_stream.repartition-repartition-sink",
        "lines.flat_map_values.group_by.count.to_stream.repartition-repartition",
        "lines.flat_map_values.group_by.count.to_stream.repartition-repartition.to",
    ]


def test_a_given_name_starts_a_new_path() -> None:
    topology = Topology("t")
    topology.stream("in", name="source").filter(always, name="kept").peek(print).for_each(print)
    assert list(topology.build().nodes) == ["source", "kept", "kept.peek", "kept.peek.for_each"]


def test_named_operators_do_not_count_among_their_kind() -> None:
    topology = Topology("t")
    stream = topology.stream("in")
    stream.filter(always, name="first")
    stream.filter(always)
    stream.filter(always)
    assert list(topology.build().nodes) == ["in", "first", "in.filter", "in.filter-2"]


def test_the_order_of_a_sources_topics_does_not_matter() -> None:
    names = []
    for topics in (["b", "a"], ["a", "b"]):
        topology = Topology("t")
        topology.stream(topics, key=serde.string()).group_by_key().count()
        names.append(list(topology.build().stores))
    assert names == [["a-b.count"], ["a-b.count"]]


def test_a_store_on_a_path_with_an_ordinal_must_be_named() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=serde.string())
    stream.filter(always).group_by_key().count()
    second = stream.filter(always)
    with pytest.raises(TopologyError, match=r"count after 'in.filter-2' .* pass store='\.\.\.'"):
        second.group_by_key().count()
    with pytest.raises(TopologyError, match=r"reduce after 'in.filter-2.peek' .* pass store='\.\.\.'"):
        second.peek(print).group_by_key().reduce(max)
    with pytest.raises(TopologyError, match=r"repartition after 'in.filter-2' .* pass name='\.\.\.'"):
        second.repartition()
    second.group_by_key().count(store="second")
    second.peek(print, name="anchor").group_by_key().count()
    assert list(topology.build().stores) == ["in.filter.count", "second", "anchor.count"]


def test_a_second_aggregation_of_one_grouping_must_be_named() -> None:
    grouped = Topology("t").stream("in", key=serde.string(), value=serde.long()).group_by_key()
    grouped.count()
    grouped.reduce(max)
    with pytest.raises(TopologyError, match=r"would be called 'in\.count-2'"):
        grouped.count()


def test_branches_after_the_first_count_as_ordinals_but_the_rest_does_not() -> None:
    topology = Topology("t")
    first, second, rest = topology.stream("in", key=serde.string()).split(always, always)
    first.group_by_key().count()
    rest.group_by_key().count()
    with pytest.raises(TopologyError, match="pass store="):
        second.group_by_key().count()
    assert list(topology.build().stores) == ["in.split.branch.count", "in.split.rest.count"]


def test_long_names_are_shortened_and_stay_distinct() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=serde.string())
    for _ in range(30):
        stream = stream.filter(always)
    stream.group_by_key().count()
    stream.filter_not(always).group_by_key().count()
    graph = topology.build()

    assert len(graph.nodes) == 1 + 30 + 1 + 2
    assert all(len(name) <= MAX_GENERATED for name in (*graph.nodes, *graph.stores))
    # Published: renaming would leave state behind.
    assert shortened("in" + ".filter" * 30) == "in" + (".filter" * 12)[:81] + "-e4537dc21fac4951"


@pytest.mark.parametrize("name", ["two words", "a/b", "ä", "", ".", "..", "a:b", "x" * 250])
def test_names_that_no_topic_can_have_are_refused(name: str) -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=serde.string())
    with pytest.raises(TopologyError, match="name of a topology"):
        Topology(name)
    with pytest.raises(TopologyError, match="topic"):
        topology.stream(name)
    with pytest.raises(TopologyError, match="topic of to after 'in'"):
        stream.to(name)
    with pytest.raises(TopologyError, match="name of a store"):
        stream.group_by_key().count(store=name)
    with pytest.raises(TopologyError, match="name of filter"):
        stream.filter(always, name=name)
    with pytest.raises(TopologyError, match="name of repartition"):
        stream.repartition(name=name)
