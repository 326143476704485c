"""How many partitions and tasks a topology has, given the partition counts of its input topics.

Rule of this module: arithmetic only. Whoever talks to the broker passes in what exists and creates what is
planned.

A topic without a count of its own gets one as in Kafka Streams: topics that feed the same store must be
partitioned alike, so a repartition topic takes the count of those it meets there; one that meets none takes the
largest count among the topics its records come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from streamstate.errors import TopologyError
from streamstate.graph.names import MAX_TOPIC, changelog_topic, checked, repartition_topic
from streamstate.graph.node import Graph, SubTopology
from streamstate.graph.queries import feeding_sources
from streamstate.graph.spec import SinkSpec, SourceSpec

__all__ = ["InternalTopic", "TopicPlan", "check_existing", "plan_topics"]


@dataclass(frozen=True, slots=True)
class InternalTopic:
    """A topic that belongs to the application.

    Attributes:
        name: in full, with the application's prefix.
        kind: what it is for.
        of: the store, or the repartition topic's name in specs.
        partitions: how many it must have.
        inputs: the input topics from which that number comes.
        asked_by: the repartition topics, as specs name them, whose ``partitions=`` it comes from.
    """

    name: str
    kind: Literal["changelog", "repartition"]
    of: str
    partitions: int
    inputs: tuple[str, ...]
    asked_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """Tasks and internal topics of an application.

    Attributes:
        application_id: prefixes the internal topics.
        tasks: number of tasks by name of the sub-topology; their partitions are 0 to that number less one.
        changelogs: by name of the store, for the stores that have one.
        repartitions: by the repartition topic's name in specs.
    """

    application_id: str
    tasks: dict[str, int]
    changelogs: dict[str, InternalTopic]
    repartitions: dict[str, InternalTopic]

    @property
    def internal(self) -> tuple[InternalTopic, ...]:
        """Every internal topic: repartition topics first."""
        return (*self.repartitions.values(), *self.changelogs.values())


@dataclass(frozen=True, slots=True)
class _Topic:
    name: str
    internal: bool


def plan_topics(graph: Graph, application_id: str, partitions_of: Mapping[str, int]) -> TopicPlan:
    """Compute tasks, and partition counts and names of internal topics.

    Args:
        graph: the topology.
        application_id: prefixes the internal topics.
        partitions_of: partition counts by topic, at least of the input topics that exist.

    Raises:
        TopologyError: an input topic is missing, topics that must be partitioned alike are not, or a name is too
            long.

    >>> from streamstate import Topology, serde
    >>> topology = Topology("t")
    >>> words = topology.stream("words", value=serde.string())
    >>> table = words.group_by(lambda key, word: word, key=serde.string()).count(store="counts")
    >>> plan = plan_topics(topology.build(), "app", {"words": 4})
    >>> plan.tasks
    {'words': 4, 'counts-repartition': 4}
    >>> [topic.name for topic in plan.internal]
    ['app-counts-repartition', 'app-counts-changelog']
    """
    checked(application_id, "application id")
    _refuse_missing(graph, partitions_of)
    return _Planner(graph, application_id, partitions_of).plan()


def check_existing(plan: TopicPlan, existing: Mapping[str, int]) -> None:
    """Refuse internal topics that exist with another partition count than planned.

    Args:
        plan: made by ``plan_topics``.
        existing: partition counts of existing topics by full name; those that the plan does not know are ignored.

    Raises:
        TopologyError: continuing would look for keys in other partitions than those their state is in.
    """
    for topic in plan.internal:
        count = existing.get(topic.name, topic.partitions)
        if count != topic.partitions:
            raise TopologyError(_changed_count(plan, topic, count))


def _changed_count(plan: TopicPlan, topic: InternalTopic, count: int) -> str:
    now = topic.partitions
    causes = [f"input topic {name!r} now has {now}" for name in topic.inputs]
    causes += [f"repartition topic {name!r} is now asked for with partitions={now}" for name in topic.asked_by]
    fixes = [f"recreate {name!r} with {count} partitions" for name in topic.inputs]
    if topic.asked_by:
        fixes.append(f"go back to .repartition(partitions={count})")
    elif topic.inputs:
        fixes.append(f"put .repartition(partitions={count}) before the grouping")
    fixes.append(f"start over with `streamstate reset PATH --application-id {plan.application_id}`")
    return (
        f"topic {topic.name!r} exists with {count} partitions, but must have {now}: "
        f"{' and '.join(causes) or 'the topology changed'}. The partition count went from {count} to {now} under "
        "existing state, which is refused because keys would be looked for in other partitions than those that "
        f"hold their state. Either {', or '.join(fixes)}"
    )


def _refuse_missing(graph: Graph, partitions_of: Mapping[str, int]) -> None:
    read = [topic for part in graph.subtopologies for topic in part.source_topics]
    read += [table.topic for table in graph.global_tables.values()]
    missing = [topic for topic in read if not partitions_of.get(topic)]
    if missing:
        commands = "\n".join(f"  streamstate topics create {topic} --partitions N" for topic in missing)
        raise TopologyError(
            f"topology {graph.name!r} reads topics that do not exist: {', '.join(missing)}. Create them with\n"
            + commands
        )


class _Planner:
    def __init__(self, graph: Graph, application_id: str, partitions_of: Mapping[str, int]) -> None:
        self._graph = graph
        self._application_id = application_id
        self._asked: dict[_Topic, int] = {}
        self._writers: dict[_Topic, SubTopology] = {}
        self._alike = _alike(graph)
        self._counts: dict[_Topic, int] = {}
        for part in graph.subtopologies:
            for name in part.repartition_sinks:
                self._writers[_Topic(name, internal=True)] = part
            for name in part.source_topics:
                self._counts[_Topic(name, internal=False)] = partitions_of[name]
        for node in graph.nodes.values():
            if (
                isinstance(node.spec, SinkSpec)
                and isinstance(node.spec.topic, str)
                and node.spec.partitions is not None
            ):
                self._asked[_Topic(node.spec.topic, internal=True)] = node.spec.partitions
        self._counts.update(self._asked)

    def plan(self) -> TopicPlan:
        self._resolve()
        self._refuse_unlike()
        tasks: dict[str, int] = {}
        changelogs: dict[str, InternalTopic] = {}
        repartitions: dict[str, InternalTopic] = {}
        for part in self._graph.subtopologies:
            topics = _topics(part)
            tasks[part.name] = max(self._counts[topic] for topic in topics)
            for name in part.repartition_sources:
                full = repartition_topic(self._application_id, name)
                repartitions[name] = self._internal(full, "repartition", name, [_Topic(name, internal=True)])
            for store in part.stores:
                if self._graph.stores[store].own_changelog:
                    full = changelog_topic(self._application_id, store)
                    changelogs[store] = self._internal(full, "changelog", store, topics)
        return TopicPlan(self._application_id, tasks, changelogs, repartitions)

    def _resolve(self) -> None:
        """The least counts that satisfy every rule. Each pass can only raise them, so that a topic that depends
        on itself by way of others ends with the largest count that flows into the circle."""
        fixed = set(self._counts)
        open_topics = [topic for topic in self._writers if topic not in fixed]
        changed = True
        while changed:
            changed = False
            for topic in open_topics:
                count = max((self._counts.get(other, 0) for other in self._origins(topic, fixed)), default=0)
                if count > self._counts.get(topic, 0):
                    self._counts[topic] = count
                    changed = True
        unknown = [topic.name for topic in open_topics if topic not in self._counts]
        if unknown:
            raise TopologyError(
                f"repartition topics {', '.join(unknown)} take their partition counts from each other: give one "
                "of them a count with .repartition(partitions=N)"
            )

    def _origins(self, topic: _Topic, fixed: Iterable[_Topic]) -> list[_Topic]:
        """The topics whose largest count ``topic`` takes."""
        alike = self._alike.get(topic, (topic,))
        known = [other for other in alike if other in fixed]
        if known:
            return known
        return [source for other in alike for source in _topics(self._writers[other])]

    def _refuse_unlike(self) -> None:
        for topics in self._alike.values():
            counts = {self._counts[topic] for topic in topics}
            if len(counts) > 1:
                raise TopologyError(self._unlike(topics))

    def _unlike(self, topics: tuple[_Topic, ...]) -> str:
        stores = [
            store
            for store in self._graph.stores
            if {*topics} & {*_read_by(self._graph, feeding_sources(self._graph, store))}
        ]
        most = max(self._counts[topic] for topic in topics)
        fixes = [
            f"change .repartition(name={topic.name.removesuffix('-repartition')!r}) to partitions={most}"
            if topic.internal
            else f"put .repartition(partitions={most}) on the stream of {topic.name!r}"
            for topic in topics
            if self._counts[topic] < most
        ]
        listed = ", ".join(f"{topic.name!r} has {self._counts[topic]} partitions" for topic in topics)
        return (
            f"topics that meet in {_plural('store', stores)} must have equally many partitions, so that equal "
            f"keys meet in one task, but {listed}: {' and '.join(fixes)}"
        )

    def _internal(
        self, full: str, kind: Literal["changelog", "repartition"], of: str, topics: list[_Topic]
    ) -> InternalTopic:
        if len(full) > MAX_TOPIC:
            raise TopologyError(
                f"topic {full!r} would have {len(full)} characters, {MAX_TOPIC} at most are allowed: shorten the "
                f"application id or the name {of!r}"
            )
        count = max(self._counts[topic] for topic in topics)
        origins = self._first_origins(topics, count)
        inputs = tuple(topic.name for topic in origins if not topic.internal)
        return InternalTopic(full, kind, of, count, inputs, tuple(topic.name for topic in origins if topic.internal))

    def _first_origins(self, topics: list[_Topic], count: int) -> list[_Topic]:
        """The input topics and the asked-for counts that ``count`` comes from."""
        fixed = {topic for topic in self._counts if not topic.internal} | set(self._asked)
        seen: dict[_Topic, None] = {}
        queue = [topic for topic in topics if self._counts[topic] == count]
        while queue:
            topic = queue.pop(0)
            if topic in seen:
                continue
            seen[topic] = None
            if topic not in fixed:
                queue.extend(other for other in self._origins(topic, fixed) if self._counts[other] == count)
        return [topic for topic in seen if topic in fixed]


def _topics(part: SubTopology) -> list[_Topic]:
    return [
        *(_Topic(name, internal=False) for name in part.source_topics),
        *(_Topic(name, internal=True) for name in part.repartition_sources),
    ]


def _read_by(graph: Graph, sources: Iterable[str]) -> list[_Topic]:
    topics: list[_Topic] = []
    for name in sources:
        spec = graph.nodes[name].spec
        assert isinstance(spec, SourceSpec)
        topics.extend(_Topic(topic, spec.internal) for topic in spec.topics)
    return topics


def _alike(graph: Graph) -> dict[_Topic, tuple[_Topic, ...]]:
    """For each topic that feeds a store, all the topics that must be partitioned as it is."""
    groups: dict[_Topic, tuple[_Topic, ...]] = {}
    for store in graph.stores:
        joined: dict[_Topic, None] = {}
        for topic in _read_by(graph, feeding_sources(graph, store)):
            joined.update(dict.fromkeys(groups.get(topic, (topic,))))
        group = tuple(joined)
        groups.update(dict.fromkeys(group, group))
    return groups


def _plural(word: str, names: list[str]) -> str:
    listed = ", ".join(repr(name) for name in names)
    return f"the {word} {listed}" if len(names) == 1 else f"the {word}s {listed}"
