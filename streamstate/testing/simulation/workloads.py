"""Topologies with an input and with what must come of it, made for being broken.

Rule of this module: what is expected is computed from the input in plain Python, never by the engine. A workload is
added by writing one and putting it into the table of ``library``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from streamstate.engine.assign.topics import source_topics
from streamstate.graph.node import Graph
from streamstate.graph.queries import sink_topics
from streamstate.partitioning import partition_for
from streamstate.testing.simulation.expectations import Expectation, Output

__all__ = ["EPOCH_MS", "InputRecord", "Inputs", "Workload", "keyed_input", "per_partition"]

# Event times start here, well before the run's clock: 1 January 2013.
EPOCH_MS = 1_356_998_400_000


class InputRecord(NamedTuple):
    """A record to be fed."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class Inputs(NamedTuple):
    """What a run is fed, in the order in which it is.

    Attributes:
        records: all of them.
        partitions: of every input topic, and of every output topic.
    """

    records: tuple[InputRecord, ...]
    partitions: int

    def of(self, topic: str, partition: int) -> list[InputRecord]:
        """Those of one partition, in order."""
        return [record for record in self.records if record.topic == topic and record.partition == partition]


@dataclass(frozen=True)
class Workload:
    """A topology, an input and what must come of it.

    Attributes:
        name: for ``--workload`` and reports.
        graph: the topology.
        inputs: (random, partitions) to the records of a run.
        expected: the inputs to what each output topic must hold in the end. A topic that is left out is not compared.
            None: what the engine makes of the same records when nothing goes wrong, see ``reference``.
        settings: of ``WorkerSettings``, where they are not free.
        at_once: all input is there before the first worker starts.
        topics: to create, that the topology writes to by a function.
        topic_configs: settings of external topics.
        versions: later versions of the topology, which replace it one after the other in the course of a run; they read
            and write the same topics.
    """

    name: str
    graph: Graph
    inputs: Callable[[Random, int], Iterable[InputRecord]]
    expected: Callable[[Inputs], Mapping[str, Expectation]] | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    at_once: bool = False
    topics: tuple[str, ...] = ()
    topic_configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    versions: tuple[Graph, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The external topics it reads."""
        return tuple(source_topics(self.graph))

    @property
    def sinks(self) -> tuple[str, ...]:
        """The external topics it writes."""
        return tuple(dict.fromkeys((*sink_topics(self.graph), *self.topics)))

    @property
    def co_partitioned(self) -> bool:
        """Partitions of several topics must meet in one task."""
        return any(part.needs_copartitioning for part in self.graph.subtopologies)


def keyed_input(
    random: Random,
    topic: str,
    partitions: int,
    value: Callable[[int, str], bytes | None],
    *,
    keys: str = "abcdef",
    most: int = 60,
    jitter_ms: int = 0,
) -> list[InputRecord]:
    """Records with a few keys, each in its key's partition, with rising event times that are all different.

    Args:
        value: (number of the record, key) to its value.
        keys: one letter each.
        most: records.
        jitter_ms: how far event times may go back.
    """
    records = []
    time_ms = EPOCH_MS
    for number in range(random.randrange(most // 4, most + 1)):
        key = random.choice(keys)
        time_ms += random.choice((1, 1, 20, 300, 2_500))
        at_ms = max(EPOCH_MS, time_ms - (random.randrange(jitter_ms) if jitter_ms else 0))
        encoded = key.encode()
        records.append(InputRecord(topic, partition_for(encoded, partitions), encoded, value(number, key), at_ms))
    return records


def per_partition(
    inputs: Inputs, topic: str, model: Callable[[list[InputRecord]], Iterable[Output]]
) -> list[list[Output]]:
    """What ``model`` makes of each partition of ``topic``."""
    return [list(model(inputs.of(topic, number))) for number in range(inputs.partitions)]
