"""A sample of the conformance cases on a real broker: real clients, transactions, RocksDB.

The worker is the one of ``streamstate run``, in this process, so that it can be asked when it is done with an input:
with what is in repartition topics, too, and committed. The outputs are read from Kafka, and compared as
`tests/conformance` does.

The first millisecond of 1970 cannot be said to a Kafka client (0 means now), so all times are a day later. Left out
are therefore the cases whose first windows are cut at 1970: `KStreamWindowAggregateTest` (hopping windows) and
`testEarlyRecordsRepeatedInput`. The others are left out for their time only, as variations of a kind that is here; none
needs the wall clock or several partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from streamstate import app
from streamstate.engine.worker import Worker
from streamstate.graph.node import Graph
from streamstate.graph.queries import sink_topics
from streamstate.kafka import KafkaProducer
from streamstate.operators.topics.spec import Sink, Source
from streamstate.rocksdb import StateDirectory
from tests.broker_support import eventually
from tests.conformance import (  # noqa: F401 - importing registers
    topologies_basic,
    topologies_joins,
    topologies_tables,
    topologies_windows,
)
from tests.conformance.cases import BUILDERS, Output, load, plain, play
from tests.integration.support import DEADLINE, Cluster, Reader

pytestmark = pytest.mark.broker

DAY_MS = 86_400_000
PREFIX = "conformance-"
SAMPLE = (
    "KStreamSplitTest#testKStreamSplit",
    "TimeWindowedKStreamImplTest#shouldCountWindowed[ON_WINDOW_CLOSE]",
    "KStreamSlidingWindowAggregateTest#testAggregateSmallInput[ON_WINDOW_CLOSE]",
    "SessionWindowedKStreamImplTest#shouldCountSessionWindowed[ON_WINDOW_CLOSE]",
    "SuppressScenarioTest#shouldSupportFinalResultsForTimeWindows",
    "SuppressScenarioTest#shouldImmediatelyEmitEventsWithZeroEmitAfter",
    "KStreamKStreamLeftJoinTest#testLeftJoinWithDefaultSuppliers (body runLeftJoin)",
    "KStreamKStreamOuterJoinTest#testGracePeriod",
    "KStreamKTableJoinTest#shouldClearTableEntryOnNullValueUpdates",
    "TableTableJoinIntegrationTest#testInner",
    "KTableKTableForeignKeyJoinIntegrationTest#doJoinFromLeftThenDeleteLeftEntity[inner]",
    "KStreamGlobalKTableJoinTest#shouldNotJoinOnNullKeyMapperValues",
)


class Stepped(app.Application):
    """An application whose worker takes its turns when it is told to."""

    play: Callable[[Worker], None]

    def _loop(self, worker: Worker, directory: StateDirectory) -> None:
        worker.start()
        try:
            self.play(worker)
        finally:
            worker.close()


class Stage:
    """What surrounds a worker: the topics' contents, by plain clients."""

    def __init__(self, cluster: Cluster, application_id: str, graph: Graph, worker: Worker, stack: ExitStack) -> None:
        specs = [node.spec for node in graph.nodes.values()]
        self._worker = worker
        self._inputs = {topic: (s.key, s.value) for s in specs if isinstance(s, Source) for topic in s.topics}
        tables = graph.global_tables.values()
        self._globals = {table.topic: (table.store.key, table.store.value) for table in tables}
        self._outputs = {s.topic: (s.key, s.value) for s in specs if isinstance(s, Sink) and isinstance(s.topic, str)}
        self._producer = KafkaProducer({"bootstrap.servers": cluster.bootstrap_servers})
        stack.callback(self._producer.close)
        self._readers: dict[str, Reader] = {}
        self._read: dict[str, int] = {}
        own = f"{application_id}-"
        topics = cluster.admin.list_topics(timeout=10).topics
        self._hops = [name for name in topics if name.startswith(own) and name.endswith("-repartition")]
        for topic in [*self._outputs, *self._hops]:
            if cluster.partitions(topic):
                self._readers[topic] = reader = Reader(cluster, topic)
                stack.callback(reader.close)
        self._fed = 0

    def feed(self, record: Mapping[str, Any]) -> None:
        """Send one input, and let the worker take turns until it has nothing left to do."""
        topic, key, value = record["topic"], record["key"], record["value"]
        key_serde, value_serde = (self._inputs | self._globals)[topic]
        encoded_key = None if key is None else key_serde.serialize(key)
        encoded = None if value is None else value_serde.serialize(value)
        self._producer.send([(topic, encoded, encoded_key, 0, None, record["ts"] + DAY_MS, None)])
        self._producer.flush(10_000)
        self._fed += topic in self._inputs
        eventually(self._at_rest, DEADLINE, f"the end of input {record}")

    def _at_rest(self) -> bool:
        worker = self._worker
        worker.request_commit()
        worker.tick()
        if worker.status().processed < self._fed or worker.uncommitted() or worker.global_state.behind():
            return False
        hops = sum(len(self._readers[topic].drain()) for topic in self._hops if topic in self._readers)
        return worker.status().processed == self._fed + hops

    def new_outputs(self, topic: str) -> list[Output]:
        """As the case writes them."""
        key, value = self._outputs[topic]
        records = self._readers[topic].drain()
        found = []
        for record in records[self._read.get(topic, 0) :]:
            name = plain(None if record.key is None else key.deserialize(record.key))
            if isinstance(name, dict):
                name = {**name, "start": name["start"] - DAY_MS, "end": name["end"] - DAY_MS}
            what = None if record.value is None else value.deserialize(record.value)
            found.append((name, what, record.timestamp - DAY_MS))
        self._read[topic] = len(records)
        return found


@pytest.fixture
def topics(cluster: Cluster) -> Iterator[Callable[[list[str], Iterable[str]], None]]:
    """Creates topics; they, and what the case makes besides, are gone with the test: cases use the same names."""
    own: set[str] = set()

    def create(names: list[str], besides: Iterable[str]) -> None:
        own.update(names, besides)
        for name in names:
            cluster.create(name, 1, {"retention.ms": "-1"})

    yield create
    for name in cluster.admin.list_topics(timeout=10).topics:
        if name in own or name.startswith(PREFIX):
            cluster.delete(name)


@pytest.mark.parametrize("source", SAMPLE)
def test_case(
    source: str, cluster: Cluster, topics: Callable[[list[str], Iterable[str]], None], tmp_path: Path
) -> None:
    case = load()[source]
    topology = BUILDERS[source](case).build()
    topics(case.topics, sink_topics(topology))
    settings = app.Settings(
        bootstrap_servers=cluster.bootstrap_servers,
        application_id=f"{PREFIX}{SAMPLE.index(source)}",
        state_dir=tmp_path,
    )
    application = Stepped(topology, settings)
    wrong: list[list[str]] = []

    def act(worker: Worker) -> None:
        with ExitStack() as stack:
            stage = Stage(cluster, application.application_id, topology, worker, stack)
            wrong.append(play(case, stage.feed, stage.new_outputs))

    application.play = act
    application.run()
    assert wrong == [[]]
