"""A user's own topology as a workload: an input drawn from the seed, held against the engine without faults.

Rule of this module: what is fed fits the topology's serdes, or comes from the user's own function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time
from random import Random
from typing import Any, Final
from uuid import UUID

from streamstate.errors import ConfigError, SerdeError
from streamstate.graph.node import Graph
from streamstate.operators.topics.spec import Source
from streamstate.partitioning import partition_for
from streamstate.serde import Serde
from streamstate.testing.simulation.workloads import EPOCH_MS, InputRecord, Workload

__all__ = ["MakeInput", "custom_workload"]

# (topic, random) to (key, value), both as the source's serdes take them.
MakeInput = Callable[[str, Random], tuple[Any, Any]]

MOST_RECORDS: Final = 60
KEYS: Final = ("a", "b", "c", "d", "e")
WORDS: Final = ("to be", "or not", "to be that", "is", "the question")


def custom_workload(graph: Graph, make_input: MakeInput | None = None, topics: Sequence[str] = ()) -> Workload:
    """A workload for any topology.

    Args:
        graph: the topology. Its functions must not ask for the time or for chance: they would differ from themselves.
        make_input: (topic, random) to a (key, value) of it; None: values by the names of the sources' serdes.
        topics: to create, that the topology writes to by a function.

    Raises:
        ConfigError: a source's serde is not known, so that ``make_input`` is needed.
    """
    sources = {
        topic: node.spec
        for node in graph.nodes.values()
        if isinstance(node.spec, Source) and not node.spec.internal
        for topic in node.spec.topics
    }
    if make_input is None:
        for topic, source in sources.items():
            for part, serde in (("key", source.key), ("value", source.value)):
                if serde.name not in GENERATORS:
                    raise ConfigError(
                        f"no {part}s can be made up for topic {topic!r}, whose serde is {serde.name!r}: define "
                        f"simulation_input(topic, random) beside the topology, which returns a key and a value"
                    )

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        time_ms = EPOCH_MS
        for _ in range(random.randrange(MOST_RECORDS // 4, MOST_RECORDS + 1)):
            topic = random.choice(sorted(sources))
            time_ms += random.choice((1, 1, 20, 300, 2_500))
            yield _record(topic, sources[topic], make_input, random, partitions, time_ms)

    # A task that reads several topics takes their records by event time where all of them are there.
    merges = [part for part in graph.subtopologies if len(part.source_topics) + len(part.repartition_sources) > 1]
    settings = {"fetch_wait_ms": 3_600_000, "behind_wait_ms": 3_600_000, "max_task_idle_ms": 0} if merges else {}
    return Workload(graph.name, graph, inputs, None, settings, at_once=bool(merges), topics=tuple(topics))


def _record(
    topic: str, source: Source, make_input: MakeInput | None, random: Random, partitions: int, time_ms: int
) -> InputRecord:
    if make_input is None:
        key, value = GENERATORS[source.key.name](random), GENERATORS[source.value.name](random)
    else:
        key, value = make_input(topic, random)
    encoded_key = _encoded(topic, "key", source.key, key)
    encoded_value = _encoded(topic, "value", source.value, value)
    partition = random.randrange(partitions) if encoded_key is None else partition_for(encoded_key, partitions)
    return InputRecord(topic, partition, encoded_key, encoded_value, time_ms)


def _encoded(topic: str, part: str, serde: Serde[Any], data: Any) -> bytes | None:
    try:
        return serde.encode(data)
    except SerdeError as error:
        raise ConfigError(
            f"simulation_input made a {part} for topic {topic!r} that cannot be encoded: {error}"
        ) from error


GENERATORS: Final[dict[str, Callable[[Random], Any]]] = {
    "bytes": lambda random: random.choice(KEYS).encode(),
    "string": lambda random: random.choice((*KEYS, *WORDS)),
    "long": lambda random: random.randrange(100),
    "integer": lambda random: random.randrange(100),
    "double": lambda random: random.randrange(100) / 4,
    "float": lambda random: random.randrange(100) / 4,
    "short": lambda random: random.randrange(100),
    "boolean": lambda random: random.random() < 0.5,
    "uuid": lambda random: UUID(int=random.randrange(100)),
    "date": lambda random: date(2013, 1, 1 + random.randrange(28)),
    "time": lambda random: time(random.randrange(24)),
    "datetime": lambda random: datetime(2013, 1, 1 + random.randrange(28), tzinfo=UTC),
}
