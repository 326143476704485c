"""Tables, joins with them, table aggregations."""

from __future__ import annotations

from typing import Any

from streamstate import Topology, serde
from tests.conformance.cases import Case, builds

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


# -- two tables --------------------------------------------------------------------------------------------


@builds("TableTableJoinIntegrationTest#testInner")
def table_table(case: Case) -> Topology:
    topology = Topology("table-table")
    left = topology.table("inputTopicLeft", key=LONG, value=TEXT)
    right = topology.table("inputTopicRight", key=LONG, value=TEXT)
    left.join(right, dash, store="joined", value=TEXT).to_stream().to("outputTopic")
    return topology


FOREIGN = "KTableKTableForeignKeyJoinIntegrationTest#"


@builds(
    FOREIGN + "doJoinFromLeftThenDeleteLeftEntity[inner]",
    FOREIGN + "doJoinFromLeftThenDeleteLeftEntity[left]",
    FOREIGN + "shouldNotEmitTombstonesWhenDeletingNonExistingRecords[inner]",
    FOREIGN + "shouldNotEmitTombstonesWhenDeletingNonExistingRecords[left]",
    FOREIGN + "shouldIgnoreOutOfOrderRecordsIffVersioned[inner,leftVersioned=False,rightVersioned=False]",
)
def foreign_key(case: Case) -> Topology:
    topology = Topology("foreign-key")
    left = topology.table("left", key=TEXT, value=TEXT)
    right = topology.table("right", key=TEXT, value=TEXT)
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
        lambda: "0",
        lambda key, value, aggregate: f"{aggregate}+{value}",
        lambda key, value, aggregate: f"{aggregate}-{value}",
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
