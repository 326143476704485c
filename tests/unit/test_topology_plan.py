"""Partition counts, tasks and internal topics; what is refused before and against a broker's topics."""

from __future__ import annotations

from typing import Any

import pytest

from streamstate import Processor, Stream, Topology, TopologyError, serde, stores
from streamstate.graph.build import build_graph
from streamstate.graph.node import Node
from streamstate.graph.plan import TopicPlan, check_existing, plan_topics
from streamstate.operators.topics.spec import Sink, Source

SHARED = stores.key_value("shared", key=serde.string(), value=serde.string())
TEXT = serde.string()


def source(topology: Topology, *topics: str) -> Stream[str, str]:
    return topology.stream(topics, key=TEXT, value=TEXT)


def plan(topology: Topology, **partitions_of: int) -> TopicPlan:
    return plan_topics(topology.build(), "app", partitions_of)


def partitions(planned: TopicPlan) -> dict[str, int]:
    return {topic.name: topic.partitions for topic in planned.internal}


def test_internal_topics_take_their_count_from_the_input() -> None:
    topology = Topology("t")
    source(topology, "words").group_by(lambda key, word: word, key=TEXT).count(store="counts")
    planned = plan(topology, words=4, unrelated=9)

    assert planned.tasks == {"words": 4, "counts-repartition": 4}
    assert partitions(planned) == {"app-counts-repartition": 4, "app-counts-changelog": 4}
    changelog = planned.changelogs["counts"]
    assert (changelog.kind, changelog.of, changelog.inputs, changelog.asked_by) == (
        "changelog",
        "counts",
        ("words",),
        (),
    )
    assert planned.repartitions["counts-repartition"].kind == "repartition"


def test_a_count_that_was_asked_for_wins_and_flows_on() -> None:
    topology = Topology("t")
    wide = source(topology, "in").repartition(name="wide", partitions=8)
    wide.group_by(lambda key, value: value, key=TEXT).count(store="counts")
    planned = plan(topology, **{"in": 2})

    assert planned.tasks == {"in": 2, "wide-repartition": 8, "counts-repartition": 8}
    assert planned.changelogs["counts"].asked_by == ("wide-repartition",)
    assert planned.changelogs["counts"].inputs == ()


def test_a_repartition_topic_takes_the_count_of_those_it_meets_in_a_store() -> None:
    topology = Topology("t")
    changed = source(topology, "in").select_key(lambda key, value: value)
    met = changed.repartition(name="met", key=TEXT).merge(source(topology, "other"))
    met.group_by_key().count(store="counts")
    planned = plan(topology, **{"in": 2, "other": 6})

    assert planned.tasks == {"in": 2, "met-repartition": 6}
    assert planned.repartitions["met-repartition"].inputs == ("other",)


def test_repartition_topics_that_meet_take_the_largest_count_or_the_one_asked_for() -> None:
    for asked, expected in ((None, 6), (3, 3)):
        topology = Topology("t")
        left = source(topology, "left").repartition(name="l")
        right = source(topology, "right").repartition(name="r", partitions=asked)
        left.merge(right).group_by_key().count(store="counts")
        planned = plan(topology, left=2, right=6)
        assert planned.repartitions["l-repartition"].partitions == expected
        assert planned.repartitions["r-repartition"].partitions == expected
        assert planned.changelogs["counts"].partitions == expected


def test_topics_meet_by_way_of_a_third() -> None:
    topology = Topology("t")
    one = source(topology, "a").repartition(name="one")
    two = source(topology, "b").repartition(name="two")
    source(topology, "c").merge(one, name="first").group_by_key().count(store="s1")
    one.merge(two, name="second").group_by_key().count(store="s2")
    planned = plan(topology, a=2, b=9, c=6)
    assert [planned.repartitions[f"{name}-repartition"].partitions for name in ("one", "two")] == [6, 6]


def test_topics_that_do_not_meet_in_a_store_keep_their_own_counts() -> None:
    topology = Topology("t")
    left, right = source(topology, "left"), source(topology, "right")
    left.merge(right).to("out")
    left.group_by_key().count(store="counts")
    planned = plan(topology, left=2, right=6)

    assert planned.tasks == {"left": 6}
    assert partitions(planned) == {"app-counts-changelog": 6}, "every task has every store"


def test_a_store_without_changelog_has_no_topic() -> None:
    topology = Topology("t")
    cache = stores.key_value("cache", key=TEXT, value=TEXT, changelog=False)
    source(topology, "in").process(Processor, stores=[cache])
    assert plan(topology, **{"in": 3}).internal == ()


def test_a_circle_of_repartition_topics_takes_what_flows_into_it() -> None:
    topology = Topology("t")
    first = source(topology, "in")
    around = first.repartition(name="one").repartition(name="two")
    first.merge(around).to("out")
    planned = plan(topology, **{"in": 5})
    assert planned.tasks == {"in": 5, "one-repartition": 5}


def test_a_circle_that_nothing_flows_into_is_refused() -> None:
    def repartitioned(name: str, reads: str) -> list[Node]:
        return [
            Node(reads, Source((reads,), TEXT, TEXT, internal=True)),
            Node(name + "-sink", Sink(name, TEXT, TEXT, internal=True), (reads,)),
        ]

    nodes = [Node("in", Source(("in",), TEXT, TEXT)), *repartitioned("a", "b"), *repartitioned("b", "a")]
    graph = build_graph("t", {node.name: node for node in nodes}, {})
    with pytest.raises(TopologyError, match=r"a, b take their partition counts .*\.repartition\(partitions=N\)"):
        plan_topics(graph, "app", {"in": 1})


def test_missing_topics_are_named_with_the_command_that_creates_them() -> None:
    topology = Topology("t")
    source(topology, "in", "other", "there")
    with pytest.raises(TopologyError) as caught:
        plan(topology, there=1)
    message = str(caught.value)
    assert "topology 't' reads topics that do not exist: in, other." in message
    assert "  streamstate topics create in --partitions N" in message
    assert "  streamstate topics create other --partitions N" in message


def shared_store(topology: Topology) -> None:
    source(topology, "left").process(Processor, stores=[SHARED])
    source(topology, "right").process(Processor, stores=[SHARED])


def one_source(topology: Topology) -> None:
    source(topology, "left", "right").group_by_key().count(store="shared")


def merged(topology: Topology) -> None:
    source(topology, "left").merge(source(topology, "right")).group_by_key().count(store="shared")


@pytest.mark.parametrize("arrange", [shared_store, one_source, merged])
def test_topics_that_meet_in_a_store_must_have_equal_counts(arrange: Any) -> None:
    topology = Topology("t")
    arrange(topology)
    assert plan(topology, left=4, right=4).tasks == {topology.build().subtopologies[0].name: 4}
    with pytest.raises(TopologyError) as caught:
        plan(topology, left=2, right=6)
    message = str(caught.value)
    assert "meet in the store 'shared'" in message
    assert "'left' has 2 partitions, 'right' has 6 partitions" in message
    assert "put .repartition(partitions=6) on the stream of 'left'" in message


def test_a_count_that_was_asked_for_must_fit_the_topics_it_meets() -> None:
    topology = Topology("t")
    narrow = source(topology, "left").repartition(name="narrow", partitions=2)
    narrow.merge(source(topology, "right")).group_by_key().count(store="counts")
    with pytest.raises(TopologyError) as caught:
        plan(topology, left=1, right=6)
    assert "change .repartition(name='narrow') to partitions=6" in str(caught.value)


def test_the_advice_resolves_the_refusal() -> None:
    topology = Topology("t")
    left = source(topology, "left").repartition(name="left", partitions=6)
    left.merge(source(topology, "right")).group_by_key().count(store="counts")
    assert plan(topology, left=2, right=6).tasks == {"left": 2, "left-repartition": 6}


def test_names_that_become_too_long_with_the_application_id_are_refused() -> None:
    topology = Topology("t")
    source(topology, "in").group_by_key().count(store="s" * 140)
    graph = topology.build()
    plan_topics(graph, "a" * 98, {"in": 1})
    with pytest.raises(TopologyError, match=r"would have 250 characters, 249 at most .* shorten the app"):
        plan_topics(graph, "a" * 99, {"in": 1})
    with pytest.raises(TopologyError, match="application id 'a b'"):
        plan_topics(graph, "a b", {"in": 1})


def test_existing_topics_that_fit_or_are_unknown_pass() -> None:
    topology = Topology("t")
    source(topology, "in").group_by_key().count(store="counts")
    planned = plan(topology, **{"in": 4})
    check_existing(planned, {})
    check_existing(planned, {"app-counts-changelog": 4, "in": 4, "app-older-changelog": 1})


def test_an_inputs_changed_partition_count_is_refused_with_the_ways_out() -> None:
    topology = Topology("t")
    source(topology, "in").group_by_key().count(store="counts")
    with pytest.raises(TopologyError) as caught:
        check_existing(plan(topology, **{"in": 8}), {"app-counts-changelog": 4})
    message = str(caught.value)
    assert "topic 'app-counts-changelog' exists with 4 partitions, but must have 8" in message
    assert "input topic 'in' now has 8" in message
    assert "went from 4 to 8 under existing state" in message
    assert "recreate 'in' with 4 partitions" in message
    assert ".repartition(partitions=4) before the grouping" in message
    assert "`streamstate reset PATH --application-id app`" in message


def test_a_changed_wish_is_refused_with_the_ways_out() -> None:
    topology = Topology("t")
    source(topology, "in").repartition(name="wide", partitions=8).group_by_key().count(store="counts")
    with pytest.raises(TopologyError) as caught:
        check_existing(plan(topology, **{"in": 2}), {"app-wide-repartition": 4})
    message = str(caught.value)
    assert "repartition topic 'wide-repartition' is now asked for with partitions=8" in message
    assert "go back to .repartition(partitions=4)" in message
    assert "recreate" not in message


def test_the_way_out_by_repartitioning_keeps_the_changelogs_count() -> None:
    topology = Topology("t")
    source(topology, "in").repartition(name="old", partitions=4).group_by_key().count(store="counts")
    check_existing(plan(topology, **{"in": 8}), {"app-counts-changelog": 4})
