"""Descriptions: what they show, and that they are the same each time."""

from __future__ import annotations

import json

from streamstate import Processor, Topology, dead_letter, serde, stores
from streamstate.graph.describe import describe_json, describe_mermaid, describe_text


def topology() -> Topology:
    made = Topology("t")
    flights = made.stream(
        ["north", "south"],
        key=serde.string(),
        value=serde.json(),
        timestamp="at",
        reset="latest",
        on_error=dead_letter("bad"),
    )
    cache = stores.key_value("cache", key=serde.string(), value=serde.json(), changelog=False)
    flights.process(Processor, stores=[cache], name="look", on_error="continue")
    counts = flights.group_by(lambda key, flight: flight["origin"], key=serde.string()).count(store="counts")
    counts.to_stream(emit="commit").to(lambda key, count: key)
    flights.repartition(name="wide", partitions=8)
    return made


TEXT = """\
Topology t (application id app)

Sub-topology 0: north-south
  reads   north, south
  writes  app-counts-repartition (repartition topic)
  writes  app-wide-repartition (repartition topic)
  store   cache, key string, value json, no changelog
  nodes
    north-south              source north + south, key string, value json, timestamp at, reset latest, \
on error dead_letter bad
    look                     process, on error continue, store cache, from north-south
    north-south.group_by     select_key, from north-south
    counts-repartition-sink  sink app-counts-repartition, key string, value json, from north-south.group_by
    wide-repartition-sink    sink app-wide-repartition, key string, value json, 8 partitions, from north-south

Sub-topology 1: counts-repartition
  reads   app-counts-repartition (repartition topic)
  store   counts, key string, value long, changelog app-counts-changelog
  nodes
    counts-repartition         source app-counts-repartition, key string, value json, on error dead_letter bad
    counts.count               count, store counts, from counts-repartition
    counts.count.to_stream     to_stream, emit commit, from counts.count
    counts.count.to_stream.to  sink chosen per record, key string, value long, from counts.count.to_stream

Sub-topology 2: wide-repartition
  reads   app-wide-repartition (repartition topic)
  nodes
    wide-repartition  source app-wide-repartition, key string, value json, on error dead_letter bad"""


def test_text() -> None:
    assert describe_text(topology().build(), "app") == TEXT


def test_mermaid_has_every_node_store_and_topic() -> None:
    graph = topology().build()
    drawn = describe_mermaid(graph, "app")
    for name in (*graph.nodes, *graph.stores, "north", "south", "app-counts-changelog", "chosen per record"):
        assert f'"{name}"' in drawn or f'"{name}<br/>' in drawn
    assert drawn.count("subgraph") == drawn.count("  end") == 3
    assert '[/"app-counts-repartition"/]' in drawn
    assert drawn.count("<-->") == 2
    assert drawn.count("-.->") == 1, "only counts has a changelog"


def test_json_is_plain_data() -> None:
    described = describe_json(topology().build(), "app")
    assert json.loads(json.dumps(described)) == described
    first, second, _ = described["subtopologies"]
    assert first["stores"] == [{"name": "cache", "key": "string", "value": "json", "changelog": None}]
    assert second["repartition_sources"] == ["app-counts-repartition"]
    assert first["nodes"][0]["topics"] == ["north", "south"]
    assert second["nodes"][-1]["topic"] is None


def test_output_is_deterministic() -> None:
    one, two = topology().build(), topology().build()
    for describe in (describe_text, describe_mermaid, describe_json):
        assert describe(one, "app") == describe(two, "app")


def test_a_table_says_where_its_rows_are_kept() -> None:
    topology = Topology("t")
    topology.table("planes", store="rows").to_stream().to("out")
    assert (
        "store   rows, key bytes, value bytes, changelog planes itself if nothing is deleted from it, else "
        "app-rows-changelog" in describe_text(topology.build(), "app")
    )
