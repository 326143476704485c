"""Stores and error policies for ``process(stores=...)`` and ``on_error=``.

Rule of this module: helpers that make specs, nothing else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamstate.serde import Serde
from streamstate.topology.names import checked
from streamstate.topology.rows import versioned_spec
from streamstate.topology.specs import ErrorPolicy, StoreSpec

__all__ = ["dead_letter", "key_value", "versioned"]


def key_value(name: str, *, key: Serde[Any], value: Serde[Any], changelog: bool = True) -> StoreSpec:
    """A key-value store for processors (Kafka Streams: ``Stores.keyValueStoreBuilder``).

    Args:
        name: unique in the topology; it names the changelog topic ``{application id}-{name}-changelog``.
        key: serde of the key. Range scans follow the order of its bytes.
        value: serde of the value.
        changelog: False for a store that may be lost when its task moves to another process.

    Raises:
        TopologyError: the name cannot be part of a topic name.

    >>> from streamstate import serde, stores
    >>> stores.key_value("seen", key=serde.string(), value=serde.long()).changelog
    True
    """
    return StoreSpec(checked(name, "name of a store"), key, value, changelog)


def versioned(
    name: str, *, key: Serde[Any], value: Serde[Any], history: timedelta, changelog: bool = True
) -> StoreSpec:
    """A versioned store for processors (Kafka Streams: ``Stores.versionedKeyValueStoreBuilder``).

    Args:
        name: unique in the topology; it names the changelog topic ``{application id}-{name}-changelog``.
        key: serde of the key.
        value: serde of the value.
        history: how far back from the greatest timestamp put versions can be read, and may still come.
        changelog: False for a store that may be lost when its task moves to another process.

    Raises:
        TopologyError: the name cannot be part of a topic name, or the history is negative.

    >>> from datetime import timedelta
    >>> from streamstate import serde, stores
    >>> stores.versioned("prices", key=serde.string(), value=serde.double(), history=timedelta(hours=1)).history_ms
    3600000
    """
    return versioned_spec(StoreSpec(checked(name, "name of a store"), key, value, changelog), history)


def dead_letter(topic: str) -> ErrorPolicy:
    """Write records that fail to ``topic``, as they came, within the same transaction, and go on.

    Args:
        topic: takes the original bytes and headers, and headers that say what failed where.

    Raises:
        TopologyError: no topic can be called that.

    >>> dead_letter("rejected")
    ErrorPolicy(action='dead_letter', topic='rejected')
    """
    return ErrorPolicy("dead_letter", checked(topic, "dead-letter topic"))
