"""Tables, joins with them, table aggregations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamstate import Topology, serde
from tests.conformance.cases import Case, builds

HISTORY = timedelta(minutes=5)
NUMBER, LONG, TEXT = serde.integer(), serde.long(), serde.string()


def text(value: Any) -> str:
    """As the cases write a missing side."""
    return "null" if value is None else str(value)


def plus(left: str | None, right: str | None) -> str:
    return f"{text(left)}+{text(right)}"


def dash(left: str | None, right: str | None) -> str:
    return f"{text(left)}-{text(right)}"


def pair(left: str | None, right: str | None) -> str:
    return f"({text(left)},{text(right)})"


# -- a stream with a table ---------------------------------------------------------------------------------


@builds(
    "KStreamKTableJoinTest#shouldNotJoinWithEmptyTableOnStreamUpdates",
    "KStreamKTableJoinTest#shouldClearTableEntryOnNullValueUpdates",
)
def stream_table(case: Case) -> Topology:
    topology = Topology("stream-table")
    table = topology.table("tableTopic", key=NUMBER, value=TEXT)
    topology.stream("streamTopic", key=NUMBER, value=TEXT).join(table, plus).to("output", value=TEXT)
    return topology


@builds(
    "KStreamKTableLeftJoinTest#shouldJoinWithEmptyTableOnStreamUpdates",
    "KStreamKTableLeftJoinTest#shouldClearTableEntryOnNullValueUpdates",
)
def stream_table_left(case: Case) -> Topology:
    topology = Topology("stream-table-left")
    table = topology.table("tableTopic", key=NUMBER, value=TEXT)
    topology.stream("streamTopic", key=NUMBER, value=TEXT).left_join(table, plus).to("output", value=TEXT)
    return topology


@builds("StreamTableJoinIntegrationTest#testInner")
def stream_table_out_of_order(case: Case) -> Topology:
    topology = Topology("stream-table-out-of-order")
    table = topology.table("inputTopicRight", key=LONG, value=TEXT)
    topology.stream("inputTopicLeft", key=LONG, value=TEXT).join(table, dash).to("outputTopic", value=TEXT)
    return topology


@builds("StreamTableJoinIntegrationTest#testLeftWithVersionedStore")
def stream_versioned_table(case: Case) -> Topology:
    topology = Topology("stream-versioned-table")
    table = topology.table("inputTopicRight", key=LONG, value=TEXT, versioned=HISTORY)
    topology.stream("inputTopicLeft", key=LONG, value=TEXT).left_join(table, dash).to("outputTopic", value=TEXT)
    return topology


@builds("StreamTableJoinWithGraceIntegrationTest#testInnerWithVersionedStore")
def stream_table_with_grace(case: Case) -> Topology:
    topology = Topology("stream-table-with-grace")
    table = topology.table("inputTopicRight", key=LONG, value=TEXT, versioned=HISTORY)
    stream = topology.stream("inputTopicLeft", key=LONG, value=TEXT)
    stream.join(table, dash, grace=timedelta(milliseconds=2)).to("outputTopic", value=TEXT)
    return topology


def after_comma(key: int, value: str) -> str | None:
    return value.split(",")[1] if "," in value else None


@builds(
    "KStreamGlobalKTableJoinTest#shouldNotJoinWithEmptyGlobalTableOnStreamUpdates",
    "KStreamGlobalKTableJoinTest#shouldNotJoinOnNullKeyMapperValues",
)
def stream_global_table(case: Case) -> Topology:
    topology = Topology("stream-global-table")
    table = topology.global_table("globalTableTopic", key=TEXT, value=TEXT)
    stream = topology.stream("streamTopic", key=NUMBER, value=TEXT)
    stream.join(table, plus, on=after_comma).to("output", value=TEXT)
    return topology


@builds("RelaxedNullKeyRequirementJoinTest#testRelaxedLeftStreamGlobalTableJoin")
def relaxed_stream_global_table(case: Case) -> Topology:
    topology = Topology("relaxed-stream-global-table")
    table = topology.global_table("global", key=TEXT, value=TEXT)
    stream = topology.stream("left", key=TEXT, value=TEXT).repartition(name="left")
    joined = stream.left_join(table, lambda left, right: f"{text(left)}|{text(right)}", on=lambda key, value: None)
    joined.to("out", value=TEXT)
    return topology


# -- two tables --------------------------------------------------------------------------------------------


@builds(
    "TableTableJoinIntegrationTest#testInner",
    "TableTableJoinIntegrationTest#testInnerWithVersionedStores",
    "TableTableJoinIntegrationTest#testInnerWithLeftVersionedOnly",
    "TableTableJoinIntegrationTest#testInnerWithRightVersionedOnly",
)
def table_table(case: Case) -> Topology:
    topology = Topology("table-table")
    sides = {"testInnerWithVersionedStores": "lr", "testInnerWithLeftVersionedOnly": "l"}
    versioned = sides.get(case.source.split("#")[1], "r" if "Right" in case.source else "")
    left = topology.table("inputTopicLeft", key=LONG, value=TEXT, versioned=HISTORY if "l" in versioned else None)
    right = topology.table("inputTopicRight", key=LONG, value=TEXT, versioned=HISTORY if "r" in versioned else None)
    left.join(right, dash, store="joined", value=TEXT).to_stream().to("outputTopic")
    return topology


FOREIGN = "KTableKTableForeignKeyJoinIntegrationTest#"


@builds(
    FOREIGN + "doJoinFromLeftThenDeleteLeftEntity[inner]",
    FOREIGN + "doJoinFromLeftThenDeleteLeftEntity[left]",
    FOREIGN + "shouldNotEmitTombstonesWhenDeletingNonExistingRecords[inner]",
    FOREIGN + "shouldNotEmitTombstonesWhenDeletingNonExistingRecords[left]",
    FOREIGN + "shouldIgnoreOutOfOrderRecordsIffVersioned[inner,leftVersioned=False,rightVersioned=False]",
    FOREIGN + "shouldIgnoreOutOfOrderRecordsIffVersioned[inner,leftVersioned=False,rightVersioned=True]",
    FOREIGN + "shouldIgnoreOutOfOrderRecordsIffVersioned[inner,leftVersioned=True,rightVersioned=False]",
    FOREIGN + "shouldIgnoreOutOfOrderRecordsIffVersioned[inner,leftVersioned=True,rightVersioned=True]",
)
def foreign_key(case: Case) -> Topology:
    topology = Topology("foreign-key")
    one, other = (f"{side}Versioned=True" in case.source for side in ("left", "right"))
    left = topology.table("left", key=TEXT, value=TEXT, versioned=HISTORY if one else None)
    right = topology.table("right", key=TEXT, value=TEXT, versioned=HISTORY if other else None)
    join = left.left_join if "[left" in case.source else left.join
    joined = join(right, pair, foreign_key=lambda key, value: value.split("|")[1], value=TEXT)
    joined.to_stream().to("output")
    return topology


# -- rows by group -----------------------------------------------------------------------------------------


@builds("KTableAggregateTest#testAggBasic")
def aggregate(case: Case) -> Topology:
    topology = Topology("aggregate")
    rows = topology.table("topic1", key=TEXT, value=TEXT)
    rows.group_by(lambda key, value: key, key=TEXT).aggregate(
        initializer=lambda: "0",
        adder=lambda key, value, aggregate: f"{aggregate}+{value}",
        subtractor=lambda key, value, aggregate: f"{aggregate}-{value}",
        value=TEXT,
        store="aggregates",
    ).to_stream().to("output")
    return topology


@builds("KTableAggregateTest#testCount (body testCountHelper)")
def count(case: Case) -> Topology:
    topology = Topology("count")
    rows = topology.table("input", key=TEXT, value=TEXT)
    rows.group_by(lambda key, value: value, key=TEXT).count(store="counts").to_stream().to("output")
    return topology
