"""Streams: every operator that takes records one by one.

Rule of this module: a handle only adds nodes; it holds nothing but its position. Operators named ``*_values`` take
functions of the value, or of (key, value), and leave the key alone; all others take functions of (key, value). Serdes
are carried along where an operator cannot change what they encode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Literal, TypeVar, overload

from streamstate.errors import TopologyError
from streamstate.functions import Kind
from streamstate.serde import Serde
from streamstate.topology import grouped as _grouped
from streamstate.topology import specs
from streamstate.topology import table as _table
from streamstate.topology.branches import REST, Branches, checked_names
from streamstate.topology.draft import Position, same_draft
from streamstate.topology.emit import TableEmit
from streamstate.topology.held import Holding
from streamstate.topology.joins import Joins
from streamstate.topology.kinds import wrong_kind
from streamstate.topology.names import checked
from streamstate.topology.processing import Processing
from streamstate.topology.specs import ErrorPolicy
from streamstate.topology.to_table import as_table

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
T = TypeVar("T")

OnError = Literal["fail", "continue"] | ErrorPolicy


class Stream(Joins[K, V], Holding[K, V], Processing[K, V]):
    """An unbounded sequence of records (Kafka Streams: ``KStream``). Made by ``Topology.stream``.

    Every operator takes ``name=``, its name in descriptions and errors. Without one, it is called after its parent
    and itself, such as ``lines.filter``, and what is generated from that path (stores, repartition topics) stays
    the same when operators are added elsewhere.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Stream {self._at.node}>"

    def filter(self, predicate: Callable[[K, V], object], *, name: str | None = None) -> Stream[K, V]:
        """Keep the records for which ``predicate(key, value)`` is true (Kafka Streams: ``filter``).

        >>> from streamstate import Topology, serde
        >>> numbers = Topology("t").stream("numbers", value=serde.long())
        >>> numbers.filter(lambda key, number: number > 0)
        <Stream numbers.filter>
        """
        return Stream(self._then(specs.Filter(predicate), "filter", name, predicate, "key, value"))

    def filter_not(self, predicate: Callable[[K, V], object], *, name: str | None = None) -> Stream[K, V]:
        """Drop the records for which ``predicate(key, value)`` is true (Kafka Streams: ``filterNot``).

        >>> from streamstate import Topology, serde
        >>> numbers = Topology("t").stream("numbers", value=serde.long())
        >>> numbers.filter_not(lambda key, number: number > 0)
        <Stream numbers.filter_not>
        """
        return Stream(self._then(specs.Filter(predicate, negate=True), "filter_not", name, predicate, "key, value"))

    def map(self, function: Callable[[K, V], tuple[K2, V2]], *, name: str | None = None) -> Stream[K2, V2]:
        """Replace each record by the (key, value) that ``function(key, value)`` returns (Kafka Streams: ``map``).

        A grouping after it repartitions, since the key may have changed; ``map_values`` does not.

        >>> from streamstate import Topology, serde
        >>> lines = Topology("t").stream("lines", value=serde.string())
        >>> lines.map(lambda key, line: (line.split()[0], len(line)))
        <Stream lines.map>
        """
        at = self._then(specs.Map(function), "map", name, function, "key, value")
        return Stream(at.with_new_key().with_new_value())

    @overload
    def map_values(self, function: Callable[[V], V2], *, name: str | None = None) -> Stream[K, V2]: ...

    @overload
    def map_values(self, function: Callable[[K, V], V2], *, name: str | None = None) -> Stream[K, V2]: ...

    def map_values(self, function: Callable[..., V2], *, name: str | None = None) -> Stream[K, V2]:
        """Replace each value by ``function(value)`` or ``function(key, value)`` (Kafka Streams: ``mapValues``).

        How many parameters the function has decides. It sees the key and leaves it alone, so that no grouping behind it
        repartitions.

        >>> from streamstate import Topology, serde
        >>> lines = Topology("t").stream("lines", key=serde.string(), value=serde.string())
        >>> lines.map_values(len)
        <Stream lines.map_values>
        >>> lines.map_values(lambda file, line: f"{file}: {line}", name="with-file")
        <Stream with-file>
        """
        with_key = self._at.takes_key(function, "map_values", "value")
        return Stream(self._at.then(specs.MapValues(function, with_key), "map_values", name).with_new_value())

    def flat_map(
        self, function: Callable[[K, V], Iterable[tuple[K2, V2]]], *, name: str | None = None
    ) -> Stream[K2, V2]:
        """Replace each record by the (key, value) pairs of ``function(key, value)`` (Kafka Streams: ``flatMap``).

        >>> from streamstate import Topology, serde
        >>> lines = Topology("t").stream("lines", value=serde.string())
        >>> lines.flat_map(lambda key, line: [(word, 1) for word in line.split()])
        <Stream lines.flat_map>
        """
        at = self._then(specs.FlatMap(function), "flat_map", name, function, "key, value", kind="iterable")
        return Stream(at.with_new_key().with_new_value())

    @overload
    def flat_map_values(self, function: Callable[[V], Iterable[V2]], *, name: str | None = None) -> Stream[K, V2]: ...

    @overload
    def flat_map_values(
        self, function: Callable[[K, V], Iterable[V2]], *, name: str | None = None
    ) -> Stream[K, V2]: ...

    def flat_map_values(self, function: Callable[..., Iterable[V2]], *, name: str | None = None) -> Stream[K, V2]:
        """Replace each value by those of ``function(value)`` or ``function(key, value)``, under its key.

        Kafka Streams: ``flatMapValues``. How many parameters the function has decides, as for ``map_values``.

        >>> from streamstate import Topology, serde
        >>> Topology("t").stream("lines", value=serde.string()).flat_map_values(str.split)
        <Stream lines.flat_map_values>
        """
        with_key = self._at.takes_key(function, "flat_map_values", "value", kind="iterable")
        return Stream(self._at.then(specs.FlatMapValues(function, with_key), "flat_map_values", name).with_new_value())

    def select_key(self, function: Callable[[K, V], K2], *, name: str | None = None) -> Stream[K2, V]:
        """Replace each key by ``function(key, value)`` (Kafka Streams: ``selectKey``).

        >>> from streamstate import Topology, serde
        >>> lines = Topology("t").stream("lines", value=serde.string())
        >>> lines.select_key(lambda key, line: len(line))
        <Stream lines.select_key>
        """
        return Stream(self._then(specs.SelectKey(function), "select_key", name, function, "key, value").with_new_key())

    def peek(self, function: Callable[[K, V], object], *, name: str | None = None) -> Stream[K, V]:
        """Call ``function(key, value)`` for its effect and pass the record on (Kafka Streams: ``peek``).

        The effect is outside the transaction: after a failure it may happen again.

        >>> from streamstate import Topology
        >>> Topology("t").stream("lines").peek(print)
        <Stream lines.peek>
        """
        return Stream(self._then(specs.Peek(function), "peek", name, function, "key, value"))

    def for_each(self, function: Callable[[K, V], object], *, name: str | None = None) -> None:
        """Call ``function(key, value)`` for its effect and end the stream (Kafka Streams: ``foreach``).

        The effect is outside the transaction: after a failure it may happen again.

        >>> from streamstate import Topology
        >>> Topology("t").stream("lines").for_each(print)
        """
        self._then(specs.Peek(function, forward=False), "for_each", name, function, "key, value")

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
            if not isinstance(other, Stream):
                raise wrong_kind(f"merge after {self._at.node!r}", "Stream", other)
            same_draft(self._at.draft, other._at.draft, "merge")
        places = [self._at, *(other._at for other in others)]
        parents = tuple(place.node for place in places)
        if len(set(parents)) < len(parents):
            raise TopologyError(f"merge after {self._at.node!r} got the same stream twice: {', '.join(parents)}")
        first = self._at
        return Stream(
            Position(
                first.draft,
                first.draft.add(specs.Merge(), parents, "merge", name),
                key=_common([place.key for place in places], None),
                value=_common([place.value for place in places], None),
                key_changed=any(place.key_changed for place in places),
                on_error=_common([place.on_error for place in places], specs.FAIL),
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
        at = self._at.then(specs.Split(predicates or tuple(branches.values())), "split", name)
        kinds = [*(branches or ["branch"] * len(predicates)), REST]
        streams = [Stream[K, V](at.then(specs.Branch(index), kind, None)) for index, kind in enumerate(kinds)]
        return Branches(dict(zip(kinds, streams, strict=True))) if branches else tuple(streams)

    def group_by(
        self,
        function: Callable[[K, V], K2],
        *,
        key: Serde[K2],
        value: Serde[V] | None = None,
        name: str | None = None,
    ) -> _grouped.GroupedStream[K2, V]:
        """Group by ``function(key, value)``, through a repartition topic (Kafka Streams: ``groupBy``).

        Args:
            function: makes the new key.
            key: serde of the new key.
            value: serde of the value in the repartition topic; by default the one known.
            name: of the operator that replaces the key.

        Raises:
            TopologyError: the value's serde is not known.

        >>> from streamstate import Topology, serde
        >>> flights = Topology("t").stream("flights", value=serde.json())
        >>> flights.group_by(lambda key, flight: flight["origin"], key=serde.string())
        <GroupedStream flights.group_by>
        """
        before = self._at.with_serdes(key, value)
        before.key_serde("group_by")
        before.value_serde("group_by")
        at = self._then(specs.SelectKey(function), "group_by", name, function, "key, value").with_new_key()
        return _grouped.GroupedStream(at.with_serdes(key, value))

    def group_by_key(
        self, *, key: Serde[K] | None = None, value: Serde[V] | None = None
    ) -> _grouped.GroupedStream[K, V]:
        """Group by the key as it is (Kafka Streams: ``groupByKey``).

        The records go through a repartition topic only when an operator since the source, or since the last
        repartition, may have changed the key: map, flat_map, select_key or process.

        Args:
            key: serde of the key in the store; by default the one known.
            value: serde of the value; by default the one known.

        Raises:
            TopologyError: a serde that is needed is not known.

        >>> from streamstate import Topology, serde
        >>> Topology("t").stream("words", key=serde.string()).group_by_key()
        <GroupedStream words>
        """
        at = self._at.with_serdes(key, value)
        at.key_serde("group_by_key")
        if at.key_changed:
            at.value_serde("group_by_key")
        return _grouped.GroupedStream(at)

    def repartition(
        self,
        *,
        name: str | None = None,
        partitions: int | None = None,
        key: Serde[K] | None = None,
        value: Serde[V] | None = None,
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
            name = at.draft.lasting_name(at.node, "repartition", "name")
        else:
            checked(name, "name of repartition")
        return Stream(at.through_repartition(name, "repartition", partitions))

    def to_table(
        self,
        *,
        key: Serde[K] | None = None,
        value: Serde[V] | None = None,
        store: str | None = None,
        versioned: timedelta | None = None,
        emit: TableEmit = "update",
        name: str | None = None,
    ) -> _table.Table[K, V]:
        """The records as rows of a table: the newest value per key, where null deletes (Kafka Streams: ``toTable``).

        Records with a null key are left out and counted. The newest is the one that comes last, whatever its event
        time. When the key may have changed since the records were partitioned, they go through a repartition topic.
        The table keeps its rows only when something needs them: a join, a grouping, or ``store=``.

        Args:
            key: serde of the key; by default the one known.
            value: serde of the value; by default the one known.
            store: name of the store, for processors; it names the changelog and the repartition topic.
            versioned: keep the versions of each row for this long, as ``Topology.table`` does.
            emit: ``update`` passes on every record; ``change`` only those whose serialized value differs from the
                row that was there.
            name: of the operator.

        Raises:
            TopologyError: a serde is not known, a name is illegal or taken, or cannot be generated.

        >>> from streamstate import Topology, serde
        >>> flights = Topology("t").stream("flights", value=serde.json())
        >>> flights.select_key(lambda key, flight: flight["tail"]).to_table(key=serde.string(), store="last-flights")
        <Table last-flights.to_table in store last-flights>
        """
        return _table.Table(as_table(self._at.with_serdes(key, value), store, versioned, emit, name))

    def to(
        self,
        topic: str | Callable[[K, V], str],
        *,
        key: Serde[K] | None = None,
        value: Serde[V] | None = None,
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
        at.then(specs.Sink(topic, at.key_serde("to"), at.value_serde("to")), "to", name)

    def _then(
        self, spec: specs.Spec, operator: str, name: str | None, function: object, form: str, *, kind: Kind = "plain"
    ) -> Position:
        self._at.check(function, operator, form, kind=kind)
        return self._at.then(spec, operator, name)


def _common(values: Sequence[T], otherwise: T) -> T:
    return values[0] if all(value == values[0] for value in values) else otherwise
