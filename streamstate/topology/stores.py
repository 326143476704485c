"""Stores and error policies for ``process(stores=...)`` and ``on_error=``.

Rule of this module: helpers that make specs, nothing else.
"""

from __future__ import annotations

from typing import Any

from streamstate.serde import Serde
from streamstate.topology.names import checked
from streamstate.topology.specs import ErrorPolicy, StoreSpec

__all__ = ["dead_letter", "key_value"]


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
