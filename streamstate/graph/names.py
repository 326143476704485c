"""Names of nodes, stores and topics.

Rule of this module: a generated name is the path from a source, so that it changes only when that path does.
Everything is made of the characters a Kafka topic name may hold.
"""

from __future__ import annotations

import hashlib
import re

from streamstate.errors import TopologyError

MAX_TOPIC = 249
# A generated name, a suffix such as "-repartition" and an application id of up to 130 characters fit a topic name.
MAX_GENERATED = 100

_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")


def checked(name: str, what: str) -> str:
    """``name``, if a topic could be called that; ``what`` is what the error calls it.

    Raises:
        TopologyError: it could not.
    """
    if not isinstance(name, str):
        raise TopologyError(f"the {what} must be a str, not {type(name).__name__}: {name!r}")
    if not name:
        raise TopologyError(f"the {what} is empty: give it at least one character")
    if not _LEGAL.fullmatch(name) or name in (".", ".."):
        raise TopologyError(
            f"the {what} {name!r} cannot be part of a topic name: use letters, digits, '.', '_' and '-' only"
        )
    if len(name) > MAX_TOPIC:
        raise TopologyError(
            f"the {what} {name[:40]!r}... has {len(name)} characters: a topic name has {MAX_TOPIC} at most"
        )
    return name


def shortened(name: str) -> str:
    """``name``, or its start and a hash of all of it when it is too long for a generated name.

    >>> shortened("lines.count")
    'lines.count'
    >>> len(shortened("lines" + ".filter" * 40))
    100
    """
    if len(name) <= MAX_GENERATED:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: MAX_GENERATED - 17]}-{digest}"


def changelog_topic(application_id: str, store: str) -> str:
    """The full name of a store's changelog topic.

    >>> changelog_topic("word-count", "counts")
    'word-count-counts-changelog'
    """
    return f"{application_id}-{store}-changelog"


def metadata_topic(application_id: str) -> str:
    """The full name of the topic with what an application has to know of its own state.

    >>> metadata_topic("word-count")
    'word-count-metadata'
    """
    return f"{application_id}-metadata"


def repartition_topic(application_id: str, topic: str) -> str:
    """The full name of a repartition topic that specs name without the application's prefix.

    >>> repartition_topic("word-count", "counts-repartition")
    'word-count-counts-repartition'
    """
    return f"{application_id}-{topic}"
