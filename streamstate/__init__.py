"""Stateful stream processing for Python on nothing but Kafka.

Rule of this module: the whole public API, re-exports only.
"""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from streamstate import aggregates, serde, windows
from streamstate.dsl import stores
from streamstate.dsl.global_table import GlobalTable
from streamstate.dsl.stores import dead_letter
from streamstate.dsl.stream import Stream
from streamstate.dsl.table import Table
from streamstate.dsl.topology import Topology
from streamstate.errors import (
    BrokerUnavailable,
    ConfigError,
    OffsetOutOfRange,
    ProcessingError,
    SerdeError,
    StateDirectoryFailed,
    StateDirectoryLocked,
    StreamStateError,
    TaskCorrupted,
    TooManyOpenFiles,
    TopologyError,
)
from streamstate.graph.error_policy import ErrorPolicy
from streamstate.operators.aggregate.cogroup import CogroupedStream
from streamstate.operators.aggregate.handle import GroupedStream
from streamstate.operators.process.api import (
    Processor,
    ProcessorContext,
    ValueProcessor,
    ValueProcessorContext,
    ValueTransformer,
)
from streamstate.operators.process.store_views import (
    KeyValueStore,
    ListStore,
    SessionStore,
    Timers,
    VersionedKeyValueStore,
    WindowStore,
)
from streamstate.operators.stateless.branches import Branches
from streamstate.operators.suppress.build import time_limit, window_close
from streamstate.operators.table_group.handle import GroupedTable
from streamstate.operators.topics.event_time import EventTime, event_time
from streamstate.operators.windows.handle import SessionWindowedStream, WindowedStream
from streamstate.serde import Serde
from streamstate.windows import Windowed

if _TYPE_CHECKING:
    from streamstate.app import Settings, run

try:
    __version__ = _version("streamstate")
except _PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

__all__ = [
    "Branches",
    "BrokerUnavailable",
    "CogroupedStream",
    "ConfigError",
    "ErrorPolicy",
    "EventTime",
    "GlobalTable",
    "GroupedStream",
    "GroupedTable",
    "KeyValueStore",
    "ListStore",
    "OffsetOutOfRange",
    "ProcessingError",
    "Processor",
    "ProcessorContext",
    "Serde",
    "SerdeError",
    "SessionStore",
    "SessionWindowedStream",
    "Settings",
    "StateDirectoryFailed",
    "StateDirectoryLocked",
    "Stream",
    "StreamStateError",
    "Table",
    "TaskCorrupted",
    "Timers",
    "TooManyOpenFiles",
    "Topology",
    "TopologyError",
    "ValueProcessor",
    "ValueProcessorContext",
    "ValueTransformer",
    "VersionedKeyValueStore",
    "WindowStore",
    "Windowed",
    "WindowedStream",
    "__version__",
    "aggregates",
    "dead_letter",
    "event_time",
    "run",
    "serde",
    "stores",
    "time_limit",
    "window_close",
    "windows",
]


def __getattr__(name: str) -> _Any:
    """``run`` and ``Settings``, when they are first asked for: describing a topology needs no Kafka client."""
    if name in ("run", "Settings"):
        from streamstate import app

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
