"""The handle of streams: the operators of all families that begin with a stream."""

from __future__ import annotations

from typing import TypeVar

from streamstate.dsl.joins import Joins
from streamstate.graph.handles import OnError as OnError
from streamstate.operators.aggregate.handle import Grouping
from streamstate.operators.async_map.handle import Holding
from streamstate.operators.dedupe.handle import Deduplication
from streamstate.operators.process.handle import Processing
from streamstate.operators.stateless.handle import StatelessOperators
from streamstate.operators.table.handle import StreamAsTable
from streamstate.operators.topics.handle import TopicOperators

__all__ = ["Stream"]

K = TypeVar("K")
V = TypeVar("V")


class Stream(
    StatelessOperators[K, V],
    TopicOperators[K, V],
    Grouping[K, V],
    StreamAsTable[K, V],
    Joins[K, V],
    Holding[K, V],
    Processing[K, V],
    Deduplication[K, V],
):
    """An unbounded sequence of records (Kafka Streams: ``KStream``). Made by ``Topology.stream``.

    Every operator takes ``name=``, its name in descriptions and errors. Without one, it is called after its parent
    and itself, such as ``lines.filter``, and what is generated from that path (stores, repartition topics) stays
    the same when operators are added elsewhere.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Stream {self._at.node}>"
