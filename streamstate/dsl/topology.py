"""The start of every topology.

Rule of this module: a ``Topology`` hands out streams and checks what it is given at once; what can only be seen of
the whole is checked by ``build``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args, overload

from streamstate.dsl.global_table import GlobalTable
from streamstate.dsl.stream import Stream
from streamstate.dsl.table import Table
from streamstate.errors import TopologyError
from streamstate.functions import checked_function
from streamstate.graph.build import build_graph
from streamstate.graph.builder import GlobalTableRef, GraphBuilder, NodeRef
from streamstate.graph.emit import TableEmit, checked_emit
from streamstate.graph.error_policy import FAIL, checked_policy
from streamstate.graph.handles import OnError
from streamstate.graph.names import checked, shortened
from streamstate.graph.node import GlobalTableSpec, Graph
from streamstate.graph.reading import Reading, known_reading
from streamstate.graph.spec import Reset
from streamstate.graph.store_settings import versioned_spec
from streamstate.operators.base.tables import materialized
from streamstate.operators.table.spec import TableSource
from streamstate.operators.topics.event_time import EventTime, Timestamp, edits
from streamstate.operators.topics.spec import Source
from streamstate.serde import SerdeLike, bytes_, known_serde
from streamstate.state.spec import StoreSpec
from streamstate.units import Duration

K = TypeVar("K")
V = TypeVar("V")

# Types of keys and values where none is given: bytes, or those of the topology.
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    DK = TypeVarWithDefault("DK", default=bytes)
    DV = TypeVarWithDefault("DV", default=bytes)
else:
    DK = TypeVar("DK")
    DV = TypeVar("DV")


class Topology(Generic[DK, DV]):
    """A description of what happens to the records of some topics (Kafka Streams: ``StreamsBuilder``).

    Args:
        name: names the application unless ``--application-id`` does: it prefixes the internal topics and is the
            consumer group.
        key: serde of keys wherever none is given and none is known; by default bytes are read as they are, and
            operators that write ask for one (Kafka Streams: ``default.key.serde``).
        value: the same of values.

    Raises:
        TopologyError: the name cannot be part of a topic name, or there is no serde for a type.

    >>> from streamstate import Topology
    >>> topology = Topology("word-count", key=str, value=str)
    >>> words = topology.stream("lines").flat_map_values(str.split)
    >>> counts = words.group_by(lambda key, word: word).count(store="counts")
    >>> counts.to("word-counts")
    >>> [part.name for part in topology.build().subtopologies]
    ['lines', 'counts-repartition']
    """

    @overload
    def __init__(self: Topology[bytes, bytes], name: str) -> None: ...

    @overload
    def __init__(self: Topology[DK, bytes], name: str, *, key: SerdeLike[DK]) -> None: ...

    @overload
    def __init__(self: Topology[bytes, DV], name: str, *, value: SerdeLike[DV]) -> None: ...

    @overload
    def __init__(self: Topology[DK, DV], name: str, *, key: SerdeLike[DK], value: SerdeLike[DV]) -> None: ...

    def __init__(self, name: str, *, key: SerdeLike[Any] | None = None, value: SerdeLike[Any] | None = None) -> None:
        where = f"of topology {name!r}"
        self._builder = GraphBuilder(
            checked(name, "name of a topology"),
            known_serde(key, f"key= {where}", key=True),
            known_serde(value, f"value= {where}"),
        )
        self._built: tuple[int, Graph] | None = None

    def __repr__(self) -> str:
        return f"<Topology {self.name}>"

    @property
    def name(self) -> str:
        """The topology's name, the default application id."""
        return self._builder.name

    @overload
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        timestamp: str | Callable[[DK, DV], int] | EventTime[DK, DV] | None = None,
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Stream[DK, DV]: ...

    @overload
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        key: SerdeLike[K],
        timestamp: str | Callable[[K, DV], int] | EventTime[K, DV] | None = None,
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Stream[K, DV]: ...

    @overload
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        value: SerdeLike[V],
        timestamp: str | Callable[[DK, V], int] | EventTime[DK, V] | None = None,
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Stream[DK, V]: ...

    @overload
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        key: SerdeLike[K],
        value: SerdeLike[V],
        timestamp: str | Callable[[K, V], int] | EventTime[K, V] | None = None,
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Stream[K, V]: ...

    def stream(
        self,
        topics: str | Sequence[str],
        *,
        key: SerdeLike[Any] | None = None,
        value: SerdeLike[Any] | None = None,
        timestamp: str | Callable[[Any, Any], int] | EventTime[Any, Any] | None = None,
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Stream[Any, Any]:
        """The records of one or several topics (Kafka Streams: ``StreamsBuilder.stream``).

        Args:
            topics: a topic, or several. A topic has one source: the same call again returns the same stream.
            key: serde of the key; by default that of the topology, or bytes as they are.
            value: serde of the value; by default that of the topology, or bytes as they are.
            timestamp: event time in milliseconds since 1970: a field of the value, or a function of (key, value);
                by default the record's own timestamp. With bounds: ``event_time(...)``.
            reset: where to start in a partition without a committed offset: ``earliest``, ``latest``, or ``error``
                to stop.
            on_error: what happens to a record that cannot be decoded or that fails in a function downstream,
                also behind repartition topics: ``fail`` stops, ``continue`` drops it, ``dead_letter("topic")``
                moves it.
            name: of the source; by default the topics'.

        Raises:
            TopologyError: no topic, one named twice or one that cannot exist, one that is read in another way already,
                or a setting that is none.

        >>> from streamstate import Topology, dead_letter, serde
        >>> topology = Topology("t")
        >>> topology.stream("flights", value=serde.json(), timestamp="scheduled_ms", on_error=dead_letter("bad"))
        <Stream flights>
        >>> topology.stream(["north", "south"])
        <Stream north-south>
        """
        names = (topics,) if isinstance(topics, str) else tuple(topics)
        if not names:
            raise TopologyError(f"stream of topology {self.name!r} got no topics: name at least one")
        if len(set(names)) < len(names):
            raise TopologyError(f"stream of topology {self.name!r} names a topic twice: {', '.join(names)}")
        source = _source(self._builder, names, key, value, timestamp, reset, on_error)
        settings = _settings(source)
        known = known_reading(self._builder.readings, "stream", names, settings, name)
        if known is not None:
            return Stream(known.made)
        # Sorted, because the order in which topics are written means nothing and must not rename stores.
        node = self._builder.add(source, (), "stream", name or shortened("-".join(sorted(names))))
        at = NodeRef(self._builder, node, source.key, source.value, on_error=source.on_error)
        self._builder.readings.update(dict.fromkeys(names, Reading("stream", names, settings, node, at)))
        return Stream(at)

    @overload
    def table(
        self,
        topic: str,
        *,
        timestamp: str | Callable[[DK, DV], int] | EventTime[DK, DV] | None = None,
        store: str | None = None,
        own_changelog: bool = False,
        versioned: Duration | None = None,
        emit: TableEmit = "update",
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Table[DK, DV]: ...

    @overload
    def table(
        self,
        topic: str,
        *,
        key: SerdeLike[K],
        timestamp: str | Callable[[K, DV], int] | EventTime[K, DV] | None = None,
        store: str | None = None,
        own_changelog: bool = False,
        versioned: Duration | None = None,
        emit: TableEmit = "update",
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Table[K, DV]: ...

    @overload
    def table(
        self,
        topic: str,
        *,
        value: SerdeLike[V],
        timestamp: str | Callable[[DK, V], int] | EventTime[DK, V] | None = None,
        store: str | None = None,
        own_changelog: bool = False,
        versioned: Duration | None = None,
        emit: TableEmit = "update",
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Table[DK, V]: ...

    @overload
    def table(
        self,
        topic: str,
        *,
        key: SerdeLike[K],
        value: SerdeLike[V],
        timestamp: str | Callable[[K, V], int] | EventTime[K, V] | None = None,
        store: str | None = None,
        own_changelog: bool = False,
        versioned: Duration | None = None,
        emit: TableEmit = "update",
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Table[K, V]: ...

    def table(
        self,
        topic: str,
        *,
        key: SerdeLike[Any] | None = None,
        value: SerdeLike[Any] | None = None,
        timestamp: str | Callable[[Any, Any], int] | EventTime[Any, Any] | None = None,
        store: str | None = None,
        own_changelog: bool = False,
        versioned: Duration | None = None,
        emit: TableEmit = "update",
        reset: Reset = "earliest",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Table[Any, Any]:
        """A topic as a table: the newest value per key, where null deletes (Kafka Streams: ``StreamsBuilder.table``).

        The newest is the one of the greatest offset, whatever its event time; records with a null key are left out.
        The table keeps its rows only when something needs them: a join, a grouping, or ``store=``.

        A topic that is compacted, or kept for ever (``retention.ms=-1`` and ``retention.bytes=-1``), is itself the
        changelog of that store, so that rows are written only once. The store has a changelog topic of its own
        when the topic is deleted by time, with an error policy other than ``fail``, or with ``own_changelog=True``.

        Args:
            topic: it has one source: the same call again returns the same table.
            key: serde of the key; by default that of the topology, or bytes as they are.
            value: serde of the value; by default that of the topology, or bytes as they are.
            timestamp: event time, as for ``stream``; a record that deletes has its own timestamp.
            store: name of the store, for processors; by default it is named after the topic.
            own_changelog: do not use the topic as the changelog. To change how rows are kept under an existing
                application, give the store another name or start over with ``streamstate reset``.
            versioned: keep the versions of each row for this long, so that joins find the one that held at the time of
                the other record. Records that are older than the row's newest version are taken into its history
                and passed on by ``to_stream``; joins and groupings of tables leave them out. The store has its own
                changelog. Kafka Streams: ``Stores.persistentVersionedKeyValueStore``.
            emit: ``update`` passes on every record; ``change`` only those whose serialized value differs from the
                row that was there.
            reset: as for ``stream``: where changes begin to be passed on. The rows are those of the whole topic.
            on_error: as for ``stream``.
            name: of the source; by default the topic's.

        Raises:
            TopologyError: as for ``stream``.

        >>> from streamstate import Topology, serde
        >>> Topology("t").table("planes", key=serde.string(), value=serde.json())
        <Table planes.table>
        """
        checked_emit(emit, f"table of {topic!r}", TableEmit)
        source = replace(_source(self._builder, (topic,), key, value, timestamp, reset, on_error), rows=True)
        builder = self._builder
        settings = _settings(source, store=store, own_changelog=own_changelog, versioned=versioned, emit=emit)
        known = known_reading(builder.readings, "table", (topic,), settings, name)
        if known is not None:
            return Table(known.made)
        parent = builder.add(source, (), "table", name or shortened(topic))
        # What a failed record wrote is taken back under other policies, which the topic does not show; nor does it
        # show which event times were not believed.
        reuse = source.on_error == FAIL and not own_changelog and not edits(source.timestamp)
        spec = TableSource(source.key, source.value, topic, reuse, store, emit)
        at = NodeRef(builder, parent, source.key, source.value, on_error=source.on_error).then(spec, "table", None)
        if store is not None or versioned is not None:
            kept = StoreSpec(
                at.node if store is None else checked(store, "name of a store"),
                source.key,
                source.value,
                source=topic,
                reuse=reuse,
                content="table",
            )
            builder.claim_store(kept if versioned is None else versioned_spec(kept, versioned))
            builder.replace(at.node, replace(spec, store=kept.name))
        if emit == "change":
            materialized(builder, at.node, "emit='change'")
        builder.readings[topic] = Reading("table", (topic,), settings, parent, at)
        return Table(at)

    def global_table(
        self,
        topic: str,
        *,
        key: SerdeLike[K],
        value: SerdeLike[V],
        timestamp: str | Callable[[K, V], int] | None = None,
        store: str | None = None,
        on_error: Literal["fail", "continue"] = "fail",
    ) -> GlobalTable[K, V]:
        """A topic of which every process has all rows (Kafka Streams: ``StreamsBuilder.globalTable``).

        The newest record of a key is its row, null deletes, records with a null key are left out. The rows are kept in
        the process' state directory with the offsets they reflect, outside of any transaction of the application.

        Args:
            topic: no stream and no table reads it. It should be compacted.
            key: serde of the key.
            value: serde of the value.
            timestamp: event time, as for ``stream``; a record that deletes has its own timestamp.
            store: name of the store; by default the topic's.
            on_error: what happens to a record that cannot be decoded: ``fail`` ends the process, ``continue``
                leaves it out.

        Raises:
            TopologyError: the topic is read in another way, or a name is illegal or taken.

        >>> from streamstate import Topology, serde
        >>> Topology("t").global_table("airlines", key=serde.string(), value=serde.json())
        <GlobalTable airlines>
        """
        if on_error not in ("fail", "continue"):
            raise TopologyError(f"on_error= of global table {topic!r} takes 'fail' or 'continue', not {on_error!r}")
        source = _source(self._builder, (topic,), key, value, timestamp, "earliest", "fail")
        settings = {**_settings(source, store=store), "on_error": on_error}
        known = known_reading(self._builder.readings, "global_table", (topic,), settings, None)
        if known is not None:
            return GlobalTable(GlobalTableRef(self._builder, known.made))
        name = checked(topic if store is None else store, "name of a store")
        kept = StoreSpec(name, source.key, source.value, changelog=False, source=topic, content="global table")
        self._builder.add_global_table(GlobalTableSpec(topic, kept, timestamp, skip=on_error == "continue"))
        self._builder.readings[topic] = Reading("global_table", (topic,), settings, name, name)
        return GlobalTable(GlobalTableRef(self._builder, name))

    def add_store(self, store: StoreSpec) -> None:
        """Add a store that ``process(stores=[name])`` refers to by name (Kafka Streams: ``addStateStore``).

        Args:
            store: made by ``stores.key_value``.

        Raises:
            TopologyError: a different store has that name.

        >>> from streamstate import Topology, serde, stores
        >>> Topology("t").add_store(stores.key_value("seen", key=serde.string(), value=serde.long()))
        """
        if store.name in self._builder.stores:
            raise TopologyError(f"two stores are named {store.name!r}: add it once, or give one another name")
        self._builder.add_store(store)

    def run(self, arguments: Sequence[str] | None = None) -> None:
        """Run this topology from a script, until SIGTERM or Ctrl-C.

        .. code-block:: python

            if __name__ == "__main__":
                topology.run()

        The script takes the options of ``streamstate run``, reads the same environment variables and configuration
        file, and ends with the same exit codes. One process runs one worker; start the script again to share the work.

        Args:
            arguments: of the script; by default those of the command line.
        """
        # The one import from below of what stands above: a script has nothing but the topology in hand.
        from streamstate.app.script import run_script

        run_script(self, arguments)

    def build(self) -> Graph:
        """The topology as an immutable, validated graph (Kafka Streams: ``StreamsBuilder.build``).

        The same graph is returned until something is added.

        Raises:
            TopologyError: the topology cannot run as written.

        >>> from streamstate import Topology
        >>> topology = Topology("t")
        >>> topology.stream("lines").to("copy")
        >>> list(topology.build().nodes)
        ['lines', 'lines.to']
        """
        builder = self._builder
        if self._built is None or self._built[0] != builder.version:
            self._built = (
                builder.version,
                build_graph(builder.name, builder.nodes, builder.stores, builder.global_tables),
            )
        return self._built[1]


def _source(
    builder: GraphBuilder,
    topics: tuple[str, ...],
    key: SerdeLike[Any] | None,
    value: SerdeLike[Any] | None,
    timestamp: Timestamp,
    reset: Reset,
    on_error: OnError,
) -> Source:
    for topic in topics:
        checked(topic, "topic")
    if reset not in get_args(Reset):
        raise TopologyError(f"reset= takes 'earliest', 'latest' or 'error', not {reset!r}")
    if timestamp is not None and not isinstance(timestamp, str | EventTime) and not callable(timestamp):
        raise TopologyError(
            f"timestamp= takes a field name or a function of (key, value), or event_time(...), not {timestamp!r}"
        )
    if callable(timestamp):
        checked_function(timestamp, f"the source of {', '.join(topics)}", "key, value", argument="timestamp=")
    where = f"the source of {', '.join(topics)}"
    key_serde = known_serde(key, f"key= of {where}", key=True) or builder.key or bytes_()
    value_serde = known_serde(value, f"value= of {where}") or builder.value or bytes_()
    return Source(topics, key_serde, value_serde, timestamp, reset, checked_policy(on_error))


def _settings(source: Source, **more: object) -> dict[str, object]:
    """What two readings of a topic must have in common to be one."""
    return {
        "key": source.key,
        "value": source.value,
        "timestamp": source.timestamp,
        "reset": source.reset,
        "on_error": source.on_error,
        **more,
    }
