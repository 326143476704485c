"""``emit=``: which results an operator passes on, in one vocabulary, and what each operator can do of it.

==========  ====================================================================================
``update``  every update
``change``  updates whose value differs from the one that was there
``commit``  at each commit, the newest of each key that was updated since the last one
``close``   one result per window, when it closes
==========  ====================================================================================
"""

from __future__ import annotations

from typing import Literal, get_args

from streamstate.errors import TopologyError

__all__ = ["Emit", "StreamEmit", "TableEmit", "WindowEmit", "checked_emit"]

Emit = Literal["update", "change", "commit", "close"]
# What ``to_stream``, tables, and aggregations by window can do of it.
StreamEmit = Literal["update", "change", "commit"]
TableEmit = Literal["update", "change"]
WindowEmit = Literal["update", "commit", "close"]

_ELSEWHERE = {
    "change": "to_stream(emit='change') behind it leaves out what changes nothing",
    "commit": "to_stream(emit='commit') behind it sends the newest of each key at each commit",
    "close": "only windows close: count, reduce and aggregate behind windowed_by take emit='close', and "
    "suppress(window_close()) holds back what comes out of them",
}


def checked_emit(emit: object, where: str, allowed: object) -> None:
    """Check an ``emit=``.

    Args:
        emit: what was given.
        where: it was given, for errors, such as ``to_stream after 'counts'``.
        allowed: the type of what the operator can do.

    Raises:
        TopologyError: it is no such word, or one for other operators, which the message names.

    >>> checked_emit("close", "to_stream after 'counts'", StreamEmit)
    Traceback (most recent call last):
    streamstate.errors.TopologyError: to_stream after 'counts' takes emit='update', 'change' or 'commit', not 'close': \
only windows close: count, reduce and aggregate behind windowed_by take emit='close', and \
suppress(window_close()) holds back what comes out of them
    """
    words: tuple[str, ...] = get_args(allowed)
    if emit in words:
        return
    listed = f"{', '.join(repr(word) for word in words[:-1])} or {words[-1]!r}"
    hint = f": {_ELSEWHERE[emit]}" if isinstance(emit, str) and emit in _ELSEWHERE else ""
    raise TopologyError(f"{where} takes emit={listed}, not {emit!r}{hint}")
