"""Stateful stream processing for Python on nothing but Kafka.

Rule of this module: the whole public API, re-exports only.
"""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from streamstate import aggregates, serde, windows
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
from streamstate.serde import Serde
from streamstate.topology import (
    Branches,
    CogroupedStream,
    ErrorPolicy,
    EventTime,
    GlobalTable,
    GroupedStream,
    GroupedTable,
    KeyValueStore,
    ListStore,
    Processor,
    ProcessorContext,
    SessionStore,
    SessionWindowedStream,
    Stream,
    Table,
    Timers,
    Topology,
    ValueProcessor,
    ValueProcessorContext,
    ValueTransformer,
    VersionedKeyValueStore,
    WindowedStream,
    WindowStore,
    dead_letter,
    event_time,
    stores,
    time_limit,
    window_close,
)
from streamstate.windows import Windowed

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
    "serde",
    "stores",
    "time_limit",
    "window_close",
    "windows",
]
