"""Exceptions, named by what to do about them.

Rule of this module: every message says what happened, where (topic, partition, offset, store) and the
command or setting that fixes it. Each class carries the exit code with which ``streamstate run`` ends.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = [
    "BrokerUnavailable",
    "ConfigError",
    "OffsetOutOfRange",
    "ProcessingError",
    "SerdeError",
    "StateDirectoryFailed",
    "StateDirectoryLocked",
    "StreamStateError",
    "TaskCorrupted",
    "TooManyOpenFiles",
    "TopologyError",
]


def shown(value: object, most: int = 160, text: Callable[[object], str] = repr) -> str:
    """``repr`` of what a user gave, for an error: cut, and never itself the error.

    Args:
        value: anything, also what cannot be shown: an int has at most 4,300 digits as text, and a class may do as it
            likes.
        most: characters.
        text: makes the text of it.

    >>> shown("a" * 200, 12)
    "'aaaaa ... aaaaa'"
    >>> shown(10**5000)
    '<int that cannot be shown: ValueError>'
    """
    try:
        said = text(value)
    except Exception as error:  # noqa: BLE001 - the record is to blame, and what is said of it comes second
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
    return said if len(said) <= most else f"{said[: most // 2]} ... {said[-(most // 2) :]}"


class StreamStateError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        exit_code: the status with which ``streamstate run`` ends when this error stops it.
    """

    exit_code: int = 1


class TopologyError(StreamStateError):
    """The topology cannot run as written, or does not fit the topics that exist. Yours to fix before it runs."""

    exit_code = 3


class ConfigError(StreamStateError):
    """A setting is missing, unknown or out of range. Yours to fix before it runs."""

    exit_code = 2


class TooManyOpenFiles(ConfigError):
    """This process may not open as many files as its tasks need. Raise ``ulimit -n``, or start more processes, which
    share the tasks."""


class BrokerUnavailable(StreamStateError):
    """No broker answered within the allowed time. Nothing is lost; start again when it is back."""

    exit_code = 4


class StateDirectoryLocked(StreamStateError):
    """Another live process holds this part of the state directory."""

    exit_code = 5


class ProcessingError(StreamStateError):
    """A record failed in user code, under the error policy ``fail``. Nothing of it was kept."""

    exit_code = 6


class SerdeError(ProcessingError):
    """A record could not be decoded or encoded."""


class TaskCorrupted(StreamStateError):
    """Local state or a changelog contradicts what was committed, and guessing would lose data."""

    exit_code = 7


class OffsetOutOfRange(StreamStateError):
    """A committed input offset no longer exists (retention overtook it), or the topic was recreated."""

    exit_code = 8


class StateDirectoryFailed(StreamStateError):
    """The state directory cannot be written or read: a full disk, missing rights, a failing device. Kafka has all that
    was committed."""

    exit_code = 9
