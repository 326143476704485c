"""What ``Stream`` has of topics that it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from streamstate.errors import TopologyError
from streamstate.graph.handles import Handle, stream_at
from streamstate.graph.names import checked
from streamstate.operators.topics.build import through_repartition
from streamstate.operators.topics.spec import Sink
from streamstate.serde import SerdeLike

if TYPE_CHECKING:
    from streamstate.dsl.stream import Stream

__all__ = ["TopicOperators"]

K = TypeVar("K")
V = TypeVar("V")


class TopicOperators(Handle[K, V]):
    """Writing to a topic, and going on behind one."""

    __slots__ = ()

    def repartition(
        self,
        *,
        name: str | None = None,
        partitions: int | None = None,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
    ) -> Stream[K, V]:
        """Write the records to an internal topic, partitioned by key, and go on from there.

        Kafka Streams: ``repartition``. The topic is called ``{application id}-{name}-repartition``. Records with a null
        key are left out and counted, unless a join that takes null keys is anywhere behind: a left or outer join of
        streams, or a left join with a table or a global table.

        Args:
            name: of the topic.
            partitions: how many it has; by default as many as the topics it is used together with, or else as
                the topics the records come from.
            key: serde of the key; by default the one known.
            value: serde of the value; by default the one known.

        Raises:
            TopologyError: a serde is not known, or the name is illegal or cannot be generated.

        >>> from streamstate import Topology
        >>> Topology("t").stream("lines").repartition(name="wide", partitions=8)
        <Stream wide-repartition>
        """
        if partitions is not None and (not isinstance(partitions, int) or partitions < 1):
            raise TopologyError(f"repartition after {self._at.node!r} takes partitions=1 or more, not {partitions!r}")
        at = self._at.with_serdes(key, value)
        at.key_serde("repartition")
        at.value_serde("repartition")
        if name is None:
            name = at.builder.lasting_name(at.node, "repartition", "name")
        else:
            checked(name, "name of repartition")
        return stream_at(through_repartition(at, name, "repartition", partitions))

    def to(
        self,
        topic: str | Callable[[K, V], str],
        *,
        key: SerdeLike[K] | None = None,
        value: SerdeLike[V] | None = None,
        name: str | None = None,
    ) -> None:
        """Write the records to a topic (Kafka Streams: ``to``).

        Args:
            topic: its name, or a function of (key, value) that chooses it per record.
            key: serde of the key; by default the one known.
            value: serde of the value; by default the one known.
            name: of the operator.

        Raises:
            TopologyError: a serde is not known, or no topic can be called that.

        >>> from streamstate import Topology, serde
        >>> lines = Topology("t").stream("lines", value=serde.string())
        >>> lines.to("copy")
        >>> lines.to(lambda key, line: "short" if len(line) < 80 else "long")
        """
        if callable(topic):
            self._at.check(topic, "to", "key, value")
        else:
            checked(topic, f"topic of to after {self._at.node!r}")
        at = self._at.with_serdes(key, value)
        at.then(Sink(topic, at.key_serde("to"), at.value_serde("to")), "to", name)
