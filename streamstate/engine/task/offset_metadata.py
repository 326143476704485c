"""The metadata of a committed offset: stream time, changelog ids, and partitions of the topic at the first read.

A version reads as much of the text as it understands. A changelog that was deleted and created again has another topic
id. So an offset is never paired with a changelog that has lost its records, even when no local state is left to notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from zlib import crc32

N = TypeVar("N", int, None)

# Brokers take 4,096 bytes by default (``offset.metadata.max.bytes``). Stores beyond that are left out.
MOST_MARKS = 250
MARK_CHARACTERS = 16
STREAM_TIME = "t="
CHANGELOGS = "c="
AT_START = "n="


def changelog_marks(topic_ids: Mapping[str, str]) -> str:
    """Return the part of the text that says which changelogs hold the state of a task.

    Args:
        topic_ids: topic id of the changelog, by store.

    >>> changelog_marks({"counts": "X7b"})
    ';c=b837163bae55065a'
    >>> changelog_marks({})
    ''
    """
    marks = [_mark(store, topic_id) for store, topic_id in sorted(topic_ids.items()) if topic_id]
    return f";{CHANGELOGS}{''.join(marks[:MOST_MARKS])}" if marks else ""


def encode_metadata(stream_time: int, marks: str, at_start: int | None = None) -> str:
    """Return the text to commit with an offset.

    >>> encode_metadata(1357000000000, changelog_marks({"counts": "X7b"}))
    't=1357000000000;c=b837163bae55065a'
    >>> encode_metadata(5, "", 4)
    't=5;n=4'
    """
    count = "" if at_start is None else f";{AT_START}{at_start}"
    return f"{STREAM_TIME}{stream_time}{count}{marks}"


def stream_time_of(text: str) -> int:
    """Return the stream time (ms) in the text; -1 when there is none.

    >>> stream_time_of("t=1357000000000;c=b837163bae55065a"), stream_time_of("t=5"), stream_time_of("")
    (1357000000000, 5, -1)
    """
    return _number(text, STREAM_TIME, -1)


def is_ours(text: str) -> bool:
    """Return false when a tool or another consumer has committed the offset.

    >>> is_ours("t=5"), is_ours("")
    (True, False)
    """
    return text.startswith(STREAM_TIME)


def partitions_at_start(text: str) -> int | None:
    """Return how many partitions the topic had when the group first read it; None when the text does not say.

    >>> partitions_at_start("t=5;n=4"), partitions_at_start("t=5"), partitions_at_start("")
    (4, None, None)
    """
    return _number(text, AT_START, None)


def _number(text: str, what: str, otherwise: N) -> int | N:
    for part in text.split(";"):
        if part.startswith(what):
            try:
                return int(part[len(what) :])
            except ValueError:
                return otherwise
    return otherwise


def changelog_recreated(text: str, store: str, topic_id: str) -> bool:
    """Return true when the changelog was deleted and created again since the offset was committed.

    Returns false for a store that the text does not know: the topology has got it since.

    >>> text = encode_metadata(5, changelog_marks({"counts": "X7b"}))
    >>> changelog_recreated(text, "counts", "X7b"), changelog_recreated(text, "counts", "Y8c")
    (False, True)
    >>> changelog_recreated(text, "sums", "Y8c")
    False
    """
    known = next((part[len(CHANGELOGS) :] for part in text.split(";") if part.startswith(CHANGELOGS)), "")
    marks = {known[start : start + MARK_CHARACTERS] for start in range(0, len(known), MARK_CHARACTERS)}
    mark = _mark(store, topic_id)
    return bool(topic_id) and mark not in marks and any(known.startswith(mark[:8]) for known in marks)


def _mark(store: str, topic_id: str) -> str:
    return f"{crc32(store.encode()):08x}{crc32(topic_id.encode()):08x}"
