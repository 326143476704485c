"""Describing what happens to records: the builder, its specs, and the graph the engine runs.

Rule of this package: descriptions only. Nothing here runs a record, knows a broker or reads a clock.
"""

from streamstate.topology import stores
from streamstate.topology.branches import Branches
from streamstate.topology.builder import Topology
from streamstate.topology.cogrouped import CogroupedStream
from streamstate.topology.describe import describe_json, describe_mermaid, describe_text
from streamstate.topology.event_time import EventTime, event_time
from streamstate.topology.global_table import GlobalTable
from streamstate.topology.graph import sink_topics
from streamstate.topology.grouped import GroupedStream
from streamstate.topology.grouped_table import GroupedTable
from streamstate.topology.plan import InternalTopic, TopicPlan, check_existing, plan_topics
from streamstate.topology.processor import (
    Cancellable,
    Headers,
    Processor,
    ProcessorContext,
    ValueProcessor,
    ValueProcessorContext,
    ValueTransformer,
)
from streamstate.topology.specs import ErrorPolicy, Graph, Node, StoreSpec, SubTopology
from streamstate.topology.store_views import (
    KeyValueStore,
    ListStore,
    SessionStore,
    Timers,
    VersionedKeyValueStore,
    WindowStore,
)
from streamstate.topology.stores import dead_letter
from streamstate.topology.stream import Stream
from streamstate.topology.suppressing import time_limit, window_close
from streamstate.topology.table import Table
from streamstate.topology.windowed import SessionWindowedStream, WindowedStream

__all__ = [
    "Branches",
    "Cancellable",
    "CogroupedStream",
    "ErrorPolicy",
    "EventTime",
    "GlobalTable",
    "Graph",
    "GroupedStream",
    "GroupedTable",
    "Headers",
    "InternalTopic",
    "KeyValueStore",
    "ListStore",
    "Node",
    "Processor",
    "ProcessorContext",
    "SessionStore",
    "SessionWindowedStream",
    "StoreSpec",
    "Stream",
    "SubTopology",
    "Table",
    "Timers",
    "TopicPlan",
    "Topology",
    "ValueProcessor",
    "ValueProcessorContext",
    "ValueTransformer",
    "VersionedKeyValueStore",
    "WindowStore",
    "WindowedStream",
    "check_existing",
    "dead_letter",
    "describe_json",
    "describe_mermaid",
    "describe_text",
    "event_time",
    "plan_topics",
    "sink_topics",
    "stores",
    "time_limit",
    "window_close",
]
