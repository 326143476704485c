"""What ``Stream`` has of operators without state.

Operators named ``*_values`` take functions of the value, or of (key, value), and leave the key alone; all others take
functions of (key, value). Serdes are carried along where an operator cannot change what they encode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar, overload

from streamstate.errors import TopologyError
from streamstate.functions import by_field
from streamstate.graph.builder import NodeRef, same_builder
from streamstate.graph.error_policy import FAIL
from streamstate.graph.handles import Handle, is_stream, stream_at
from streamstate.graph.wrong_handle import wrong_kind
from streamstate.operators.stateless.branches import REST, Branches, checked_names
from streamstate.operators.stateless.spec import (
    Branch,
    Filter,
    FlatMap,
    FlatMapValues,
    Map,
    MapValues,
    Merge,
    Peek,
    SelectKey,
    Split,
)
from streamstate.serde import SerdeLike

if TYPE_CHECKING:
    from streamstate.dsl.stream import Stream

__all__ = ["StatelessOperators"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
T = TypeVar("T")


class StatelessOperators(Handle[K, V]):
    """Filters, maps, splits and merges."""

    __slots__ = ()

    def filter(self, predicate: Callable[[K, V], object], *, name: str | None = None) -> Stream[K, V]:
        """Keep the records for which ``predicate(key, value)`` is true (Kafka Streams: ``filter``).

        >>> from streamstate import Topology, serde
        >>> numbers = Topology("t").stream("numbers", value=serde.long())
        >>> numbers.filter(lambda key, number: number > 0)
        <Stream numbers.filter>
        """
        return stream_at(self._then(Filter(predicate), "filter", name, predicate, "key, value"))

    def filter_not(self, predicate: Callable[[K, V], object], *, name: str | None = None) -> Stream[K, V]:
        """Drop the records for which ``predicate(key, value)`` is true (Kafka Streams: ``filterNot``).

        >>> from streamstate import Topology, serde
        >>> numbers = Topology("t").stream("numbers", value=serde.long())
        >>> numbers.filter_not(lambda key, number: number > 0)
        <Stream numbers.filter_not>
        """
        return stream_at(self._then(Filter(predicate, negate=True), "filter_not", name, predicate, "key, value"))

    def map(
        self,
        function: Callable[[K, V], tuple[K2, V2]],
        *,
        key: SerdeLike[K2] | None = None,
        value: SerdeLike[V2] | None = None,
        name: str | None = None,
    ) -> Stream[K2, V2]:
        """Replace each record by the (key, value) that ``function(key, value)`` returns (Kafka Streams: ``map``).

        A grouping after it repartitions, since the key may have changed; ``map_values`` does not.

        Args:
            function: makes the pair.
            key: serde of the new key, for operators behind this one.
            value: serde of the new value.
            name: of the operator.

        >>> from streamstate import Topology, serde
        >>> lines = Topology("t").stream("lines", value=serde.string())
        >>> lines.map(lambda key, line: (line.split()[0], len(line)))
        <Stream lines.map>
        """
        at = self._then(Map(function), "map", name, function, "key, value")
        return stream_at(at.with_new_key().with_new_value().with_serdes(key, value))

    @overload
    def map_values(
        self, function: Callable[[V], V2], *, value: SerdeLike[V2] | None = None, name: str | None = None
    ) -> Stream[K, V2]: ...

    @overload
    def map_values(
        self, function: Callable[[K, V], V2], *, value: SerdeLike[V2] | None = None, name: str | None = None
    ) -> Stream[K, V2]: ...

    def map_values(
        self, function: Callable[..., V2], *, value: SerdeLike[V2] | None = None, name: str | None = None
    ) -> Stream[K, V2]:
        """Replace each value by ``function(value)`` or ``function(key, value)`` (Kafka Streams: ``mapValues``).

        How many parameters the function has decides. It sees the key and leaves it alone, so that no grouping behind it
        repartitions.

        Args:
            function: makes the new value.
            value: its serde, for operators behind this one.
            name: of the operator.

        >>> from streamstate import Topology, serde
        >>> lines = Topology("t").stream("lines", key=serde.string(), value=serde.string())
        >>> lines.map_values(len)
        <Stream lines.map_values>
        >>> lines.map_values(lambda file, line: f"{file}: {line}", name="with-file")
        <Stream with-file>
        """
        with_key = self._at.takes_key(function, "map_values", "value")
        at = self._at.then(MapValues(function, with_key), "map_values", name).with_new_value()
        return stream_at(at.with_serdes(None, value))

    def flat_map(
        self,
        function: Callable[[K, V], Iterable[tuple[K2, V2]]],
        *,
        key: SerdeLike[K2] | None = None,
        value: SerdeLike[V2] | None = None,
        name: str | None = None,
    ) -> Stream[K2, V2]:
        """Replace each record by the (key, value) pairs of ``function(key, value)`` (Kafka Streams: ``flatMap``).

        Args:
            function: makes the pairs.
            key: serde of the new keys, for operators behind this one.
            value: serde of the new values.
            name: of the operator.

        >>> from streamstate import Topology, serde
        >>> lines = Topology("t").stream("lines", value=serde.string())
        >>> lines.flat_map(lambda key, line: [(word, 1) for word in line.split()])
        <Stream lines.flat_map>
        """
        at = self._then(FlatMap(function), "flat_map", name, function, "key, value", kind="iterable")
        return stream_at(at.with_new_key().with_new_value().with_serdes(key, value))

    @overload
    def flat_map_values(
        self, function: Callable[[V], Iterable[V2]], *, value: SerdeLike[V2] | None = None, name: str | None = None
    ) -> Stream[K, V2]: ...

    @overload
    def flat_map_values(
        self, function: Callable[[K, V], Iterable[V2]], *, value: SerdeLike[V2] | None = None, name: str | None = None
    ) -> Stream[K, V2]: ...

    def flat_map_values(
        self, function: Callable[..., Iterable[V2]], *, value: SerdeLike[V2] | None = None, name: str | None = None
    ) -> Stream[K, V2]:
        """Replace each value by those of ``function(value)`` or ``function(key, value)``, under its key.

        Kafka Streams: ``flatMapValues``. How many parameters the function has decides, as for ``map_values``.

        >>> from streamstate import Topology, serde
        >>> Topology("t").stream("lines", value=serde.string()).flat_map_values(str.split)
        <Stream lines.flat_map_values>
        """
        with_key = self._at.takes_key(function, "flat_map_values", "value", kind="iterable")
        at = self._at.then(FlatMapValues(function, with_key), "flat_map_values", name).with_new_value()
        return stream_at(at.with_serdes(None, value))

    def select_key(
        self,
        function: str | Callable[[K, V], K2],
        *,
        key: SerdeLike[K2] | None = None,
        name: str | None = None,
    ) -> Stream[K2, V]:
        """Replace each key by ``function(key, value)`` (Kafka Streams: ``selectKey``).

        Args:
            function: makes the new key; or the name of a field of the value.
            key: serde of the new key, for operators behind this one.
            name: of the operator.

        >>> from streamstate import Topology
        >>> topology = Topology("t", value=dict)
        >>> topology.stream("lines", value=str).select_key(lambda key, line: len(line))
        <Stream lines.select_key>
        >>> topology.stream("orders").select_key("customer", key=str)
        <Stream orders.select_key>
        """
        chosen = by_field(function)
        at = self._then(SelectKey(chosen), "select_key", name, chosen, "key, value")
        return stream_at(at.with_new_key().with_serdes(key, None))

    def peek(self, function: Callable[[K, V], object], *, name: str | None = None) -> Stream[K, V]:
        """Call ``function(key, value)`` for its effect and pass the record on (Kafka Streams: ``peek``).

        The effect is outside the transaction: after a failure it may happen again.

        >>> from streamstate import Topology
        >>> Topology("t").stream("lines").peek(print)
        <Stream lines.peek>
        """
        return stream_at(self._then(Peek(function), "peek", name, function, "key, value"))

    def print(self, label: str | None = None, *, name: str | None = None) -> Stream[K, V]:
        """Print each record, and pass it on (Kafka Streams: ``print(Printed.toSysOut())``). For looking, not for work.

        As with ``peek``, a record that is processed again after a failure is printed again.

        Args:
            label: in front of each line; by default the name of what comes before.
            name: of the operator.

        >>> from streamstate import Topology
        >>> Topology("t", key=str, value=dict).stream("orders").print().to("copy")
        """
        shown = f"[{self._at.node if label is None else label}]"

        def show(key: K, value: V) -> None:
            print(f"{shown} {key!r}: {value!r}", flush=True)

        return stream_at(self._then(Peek(show), "print", name, show, "key, value"))

    def for_each(self, function: Callable[[K, V], object], *, name: str | None = None) -> None:
        """Call ``function(key, value)`` for its effect and end the stream (Kafka Streams: ``foreach``).

        The effect is outside the transaction: after a failure it may happen again.

        >>> from streamstate import Topology
        >>> Topology("t").stream("lines").for_each(print)
        """
        self._then(Peek(function, forward=False), "for_each", name, function, "key, value")

    def merge(self, *others: Stream[K, V], name: str | None = None) -> Stream[K, V]:
        """The records of this stream and of ``others`` (Kafka Streams: ``merge``). There is no order between them.

        A serde is carried along when all have the same one. When the streams' sources have different error
        policies, ``fail`` holds after the next repartition topic.

        Raises:
            TopologyError: there are no others, one is no Stream or of another Topology, or one is there twice.

        >>> from streamstate import Topology
        >>> topology = Topology("t")
        >>> topology.stream("lines").merge(topology.stream("more-lines"))
        <Stream lines.merge>
        """
        if not others:
            raise TopologyError(f"merge after {self._at.node!r} takes at least one other stream")
        for other in others:
            if not is_stream(other):
                raise wrong_kind(f"merge after {self._at.node!r}", "Stream", other)
            same_builder(self._at.builder, other._at.builder, "merge")
        places = [self._at, *(other._at for other in others)]
        parents = tuple(place.node for place in places)
        if len(set(parents)) < len(parents):
            raise TopologyError(f"merge after {self._at.node!r} got the same stream twice: {', '.join(parents)}")
        first = self._at
        return stream_at(
            NodeRef(
                first.builder,
                first.builder.add(Merge(), parents, "merge", name),
                key=_common([place.key for place in places], None),
                value=_common([place.value for place in places], None),
                key_changed=any(place.key_changed for place in places),
                on_error=_common([place.on_error for place in places], FAIL),
            )
        )

    @overload
    def split(
        self, predicate: Callable[[K, V], object], /, *more: Callable[[K, V], object], name: str | None = None
    ) -> tuple[Stream[K, V], ...]: ...

    @overload
    def split(self, *, name: str | None = None, **branches: Callable[[K, V], object]) -> Branches[K, V]: ...

    def split(
        self, *predicates: Callable[[K, V], object], name: str | None = None, **branches: Callable[[K, V], object]
    ) -> tuple[Stream[K, V], ...] | Branches[K, V]:
        """Send each record to the stream of the first predicate that holds (Kafka Streams: ``split``).

        Args:
            predicates: of (key, value).
            name: of the operator.
            branches: in place of ``predicates``, those of named branches, which their nodes are called after. Any name
                but ``name`` and ``rest``.

        Returns:
            One stream for each predicate and, as the last, one for the records for which none holds: as a tuple, or by
            name, see ``Branches``.

        Raises:
            TopologyError: there are no predicates, both kinds of them, or a name is illegal.

        >>> from streamstate import Topology, serde
        >>> numbers = Topology("t").stream("numbers", value=serde.long())
        >>> small, large, rest = numbers.split(lambda key, n: n < 10, lambda key, n: n > 99)
        >>> large, rest
        (<Stream numbers.split.branch-2>, <Stream numbers.split.rest>)
        >>> numbers.split(small=lambda key, n: n < 10, large=lambda key, n: n > 99, name="by-size").large
        <Stream by-size.large>
        """
        where = f"split after {self._at.node!r}"
        if predicates and branches:
            raise TopologyError(f"{where} takes predicates either in order or by the names of branches, not both")
        if not predicates and not branches:
            raise TopologyError(f"{where} takes at least one predicate")
        checked_names(tuple(branches), where)
        for branch, predicate in [*(("", each) for each in predicates), *branches.items()]:
            self._at.check(predicate, "split", "key, value", argument=f"{branch}=" if branch else "")
        at = self._at.then(Split(predicates or tuple(branches.values())), "split", name)
        kinds = [*(branches or ["branch"] * len(predicates)), REST]
        streams = [stream_at(at.then(Branch(index), kind, None)) for index, kind in enumerate(kinds)]
        return Branches(dict(zip(kinds, streams, strict=True))) if branches else tuple(streams)


def _common(values: Sequence[T], otherwise: T) -> T:
    return values[0] if all(value == values[0] for value in values) else otherwise
