"""Tables: the newest value per key.

Rule of this module: a handle only adds nodes; it holds nothing but its position.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from streamstate.errors import TopologyError
from streamstate.topology import stream as _stream
from streamstate.topology.draft import Position
from streamstate.topology.specs import Emit, ToStream

K = TypeVar("K")
V = TypeVar("V")


class Table(Generic[K, V]):
    """The newest value per key, and the stream of its changes. Made by aggregations.

    Attributes:
        store: name of the store that holds it.
    """

    __slots__ = ("_at", "store")

    def __init__(self, at: Position, store: str) -> None:
        self._at = at
        self.store = store

    def __repr__(self) -> str:
        return f"<Table {self._at.node} in store {self.store}>"

    def to_stream(self, *, emit: Emit = "update", name: str | None = None) -> _stream.Stream[K, V]:
        """The table's changes as a stream (Kafka Streams: ``KTable.toStream``).

        Args:
            emit: ``update`` sends every change; ``commit`` sends, at each commit, only the newest value of each
                key that changed since the last one.
            name: of the operator.

        Raises:
            TopologyError: another ``emit``.

        >>> from streamstate import Topology, serde
        >>> counts = Topology("t").stream("words", key=serde.string()).group_by_key().count(store="counts")
        >>> counts.to_stream(emit="commit").to("word-counts")
        """
        if emit not in ("update", "commit"):
            raise TopologyError(f"to_stream after {self._at.node!r} takes emit='update' or 'commit', not {emit!r}")
        return _stream.Stream(self._at.then(ToStream(self._at.key_serde("to_stream"), emit), "to_stream", name))
