"""Check and create the topics of an application before anything runs.

Event time is not wall time: no changelog is deleted by time, and repartition topics are kept until their records are
committed as processed, whatever their timestamps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from streamstate.engine.assign.metadata_topic import check_marks, read_marks, refuse_going_back
from streamstate.engine.ports import Admin, NewTopic, NotAuthorized, RestoreConsumer, TopicInfo
from streamstate.engine.task.store_marks import StoreMark
from streamstate.errors import TopologyError
from streamstate.graph.names import changelog_topic, metadata_topic
from streamstate.graph.node import Graph
from streamstate.graph.plan import InternalTopic, TopicPlan, check_existing, plan_topics
from streamstate.graph.queries import sink_topics, topic_writers
from streamstate.operators.base.tables import needs_old
from streamstate.operators.table.spec import TableSource

log = logging.getLogger("streamstate.topics")

# A local copy of a store that is older than a deletion's tombstone would bring the key back, so copies must not be
# used for longer than tombstones are kept (see ``streamstate.rocksdb.directory``).
TOMBSTONES_KEPT_MS = 7 * 24 * 60 * 60 * 1_000
CHANGELOG_CONFIG = {
    "cleanup.policy": "compact",
    "message.timestamp.type": "CreateTime",
    "delete.retention.ms": str(TOMBSTONES_KEPT_MS),
}
REPARTITION_CONFIG = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "segment.bytes": str(50 << 20),
    # By event time a replay of history would roll a segment for every week of it.
    "segment.ms": str((1 << 63) - 1),
    "message.timestamp.type": "CreateTime",
    # Event times far ahead pass through here; where they leave the application is where they are judged.
    "message.timestamp.after.max.ms": str((1 << 63) - 1),
}
# What an application does with its own topics.
OWN = ("Read", "Write")
# What Kafka's topics take by default.
DEFAULT_BATCH_BYTES = 1_048_588
# Settings without which data would be lost or changed; others are the operator's business. The value wanted, and why.
REQUIRED: dict[str, dict[str, tuple[str, str]]] = {
    "changelog": {"cleanup.policy": ("compact", "it would lose state")},
    "repartition": {
        "cleanup.policy": ("delete", "it would lose records"),
        "retention.ms": ("-1", "it would lose records"),
        "retention.bytes": ("-1", "it would lose records"),
        "message.timestamp.type": ("CreateTime", "records would lose their event times"),
    },
}


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of an application, checked and created.

    Attributes:
        graph: the topology, with what was decided about changelogs: what workers run.
        plan: tasks and internal topics.
        partition_counts: partitions of every topic the topology reads, by real name.
        created: names of the topics that were missing and created.
        copies_usable_s: how long a local copy of state may be used after it was current, in seconds: less than the
            time for which its changelogs keep tombstones.
        batch_bytes: size of the largest batch that all topics take whose names are known.
        marks: of the application's stores, by task where they differ; None: not looked at.
    """

    graph: Graph
    plan: TopicPlan
    partition_counts: dict[str, int]
    created: tuple[str, ...]
    copies_usable_s: float
    batch_bytes: int
    marks: dict[str, tuple[StoreMark, ...]] | None = None


def source_topics(graph: Graph) -> list[str]:
    """Return the external topics that the topology reads."""
    tables = {table.topic for table in graph.global_tables.values()}
    return sorted({topic for part in graph.subtopologies for topic in part.source_topics} | tables)


def internal_topics(graph: Graph, plan: TopicPlan) -> list[InternalTopic]:
    """Return all topics that belong to the application: those of the plan, and its metadata topic, which is
    configured like a changelog."""
    if not graph.stores:
        return [*plan.internal]
    return [*plan.internal, InternalTopic(metadata_topic(plan.application_id), "changelog", "", 1, (), ())]


def prepare_topics(
    graph: Graph,
    application_id: str,
    admin: Admin,
    replication_factor: int | None = None,
    restore_consumer: Callable[[], RestoreConsumer] | None = None,
) -> Topics:
    """Check that what exists fits the topology and create internal and output topics that are missing.

    Args:
        graph: the topology.
        application_id: prefix of the internal topics.
        admin: the cluster.
        replication_factor: of topics it creates; None: the broker's default.
        restore_consumer: makes a consumer for the marks of stores that exist; None: they are not looked at.

    Raises:
        TopologyError: a source is missing, counts do not fit, an internal topic has settings that lose data, or a
            store holds state that the topology cannot go on with.
        NotAuthorized: this principal lacks a right on one of the topics, also one that only a restore would need.
    """
    written = sink_topics(graph)
    rights = {name: ("Read", "Write") if name in written else ("Read",) for name in source_topics(graph)}
    sources = {name: info.partitions for name, info in _allowed(rights, admin).items()}
    graph, kept_ms = _with_changelogs(graph, application_id, admin)
    plan = plan_topics(graph, application_id, sources)
    internal = internal_topics(graph, plan)
    internal_rights = {topic.name: OWN for topic in internal}
    existing = {name: info.partitions for name, info in _allowed(internal_rights, admin).items()}
    check_existing(plan, existing)
    refused = refused_settings([topic for topic in internal if topic.name in existing], admin)
    if refused:
        raise TopologyError("\n".join(refused))
    marks = None
    if restore_consumer is not None:
        known = metadata_topic(application_id) in existing
        marks = read_marks(application_id, admin, restore_consumer) if known else {}
        check_marks(graph, application_id, marks)
        refuse_going_back(graph, application_id, marks, admin)
    missing = [
        NewTopic(
            topic.name,
            topic.partitions,
            replication_factor,
            CHANGELOG_CONFIG if topic.kind == "changelog" else REPARTITION_CONFIG,
        )
        for topic in internal
        if topic.name not in existing
    ]
    outputs = _missing_outputs(graph, plan, [*sources], admin)
    missing += [NewTopic(name, count, replication_factor) for name, count in outputs.items()]
    if missing:
        admin.create(missing)
        _allowed({topic.name: ("Write",) if topic.name in outputs else OWN for topic in missing}, admin)
        for topic in missing:
            _log_created(topic, output=topic.name in outputs)
    repartitions = {topic.name: topic.partitions for topic in plan.repartitions.values()}
    created = tuple(topic.name for topic in missing)
    read = _of_groups(graph, sources)
    # A day of seven for the replay itself and for clocks that differ.
    batch_bytes = _largest_batch([*sink_topics(graph), *(topic.name for topic in internal)], admin)
    return Topics(graph, plan, {**read, **repartitions}, created, kept_ms / 1_000 * 6 / 7, batch_bytes, marks)


def _allowed(rights: Mapping[str, tuple[str, ...]], admin: Admin) -> dict[str, TopicInfo]:
    """Topics that exist, of those named in ``rights``.

    Raises:
        NotAuthorized: one of the operations is not allowed on a topic, which the broker tells whoever sees the topic.
            Without this, a right that only a restore needs would be missed by the first restore, weeks later.
    """
    try:
        found = admin.topics(rights)
    except NotAuthorized as error:
        # Whoever has one of the rights on a topic also sees it.
        if error.operation == "Describe" and error.name in rights:
            raise NotAuthorized.lacking("it cannot even be seen", "topic", error.name, rights[error.name][0]) from error
        raise
    for name, info in found.items():
        for operation in rights[name]:
            if info.allowed is not None and operation not in info.allowed:
                raise NotAuthorized.lacking("the broker does not list it as allowed", "topic", name, operation)
    return found


def _missing_outputs(graph: Graph, plan: TopicPlan, sources: list[str], admin: Admin) -> dict[str, int]:
    """Output, late and dead-letter topics that are missing, with their partitions: as many as tasks write them, so that
    whoever reads them can be as many. Kafka Streams creates no output topics."""
    writers = {name: parts for name, parts in topic_writers(graph).items() if name not in sources}
    known = _allowed(dict.fromkeys(writers, ("Write",)), admin)
    return {name: max(plan.tasks[part] for part in parts) for name, parts in writers.items() if name not in known}


def _log_created(topic: NewTopic, *, output: bool) -> None:
    if not output:
        log.info("created topic %r", topic.name)
        return
    log.info(
        "created topic %r with %d partitions, as many as tasks write it. For another number create it before the first "
        "start: streamstate topics create %s --partitions N",
        topic.name,
        topic.partitions,
        topic.name,
    )


def _largest_batch(topics: list[str], admin: Admin) -> int:
    """Batches for any of these topics must stay below this. Brokers hold whole batches against ``max.message.bytes``:
    a batch of small records that is larger than its topic takes would be refused like a record that is."""
    limits = [
        int(config["max.message.bytes"]) for config in admin.config(topics).values() if "max.message.bytes" in config
    ]
    return min(limits, default=DEFAULT_BATCH_BYTES) * 9 // 10


def recounted(graph: Graph, application_id: str, admin: Admin) -> dict[str, int]:
    """Partitions of every topic the topology reads, after an input has got more of them while it was read.

    Raises:
        TopologyError: there is state, or a repartition topic, made for the count of before.
    """
    sources = {name: info.partitions for name, info in admin.topics(source_topics(graph)).items()}
    plan = plan_topics(graph, application_id, sources)
    found = admin.topics([topic.name for topic in plan.internal])
    check_existing(plan, {name: info.partitions for name, info in found.items()})
    return {**_of_groups(graph, sources), **{topic.name: topic.partitions for topic in plan.repartitions.values()}}


def _of_groups(graph: Graph, sources: dict[str, int]) -> dict[str, int]:
    """The topics that are read by the group: not those of global tables, which every process reads whole."""
    whole = {table.topic for table in graph.global_tables.values()}
    return {name: count for name, count in sources.items() if name not in whole}


def _with_changelogs(graph: Graph, application_id: str, admin: Admin) -> tuple[Graph, int]:
    """Decide which inputs serve as changelogs of their tables.

    A topic from which rows are deleted by time or size cannot: they would be missing after a restore. A compacted one
    cannot where old and new rows are compared: compaction may have taken the old one although the new one is not
    processed yet. A changelog that exists already stays in use, because the topic may have lost rows before its
    settings were changed.

    Returns:
        The graph with the decision in its stores, and how long all changelogs keep tombstones, in ms.
    """
    stores = {store.source: store for store in graph.stores.values() if store.source is not None and store.reuse}
    whole = {table.topic for table in graph.global_tables.values()}
    if not stores and not whole:
        return graph, TOMBSTONES_KEPT_MS
    own = {topic: changelog_topic(application_id, store.name) for topic, store in stores.items()}
    exist = _allowed(dict.fromkeys(own.values(), OWN), admin)
    configs = admin.config(sorted({*stores, *whole}))
    kept_ms = TOMBSTONES_KEPT_MS
    for topic in whole:
        if "compact" in configs.get(topic, {}).get("cleanup.policy", "delete"):
            kept_ms = min(kept_ms, int(configs[topic].get("delete.retention.ms", kept_ms)))
    decided = dict(graph.stores)
    for topic, store in stores.items():
        config = configs.get(topic, {})
        policy = config.get("cleanup.policy", "delete")
        forever = config.get("retention.ms") == config.get("retention.bytes") == "-1"
        compared = any(
            node.spec.emit == "change" or needs_old(graph, node.name)
            for node in graph.nodes.values()
            if isinstance(node.spec, TableSource) and node.spec.store == store.name
        )
        lossy = ("delete" in policy and not forever) or ("compact" in policy and compared)
        if own[topic] in exist or lossy:
            decided[store.name] = replace(store, reuse=False)
            log.info("topic %r does not serve as the changelog of its table, %r does", topic, own[topic])
        elif "compact" in policy:
            kept_ms = min(kept_ms, int(config.get("delete.retention.ms", kept_ms)))
    return replace(graph, stores=decided), kept_ms


def refused_settings(topics: Iterable[InternalTopic], admin: Admin, *, at_start: bool = True) -> list[str]:
    """List settings of existing internal topics that lose data, each with the command that mends it.

    Args:
        topics: those that exist.
        admin: the cluster.
        at_start: also warn of settings that cannot be read, and of those that lose data only when brokers fail.
    """
    kinds = {topic.name: topic.kind for topic in topics}
    configs = admin.config(list(kinds)) if kinds else {}
    hidden = sorted(set(kinds) - set(configs))
    if at_start:
        _warn_unclean_election(configs)
    if hidden and at_start:
        log.warning(
            "the settings of topics %s cannot be read, so that nobody sees whether they lose data: allow this "
            "principal DESCRIBE_CONFIGS on them",
            ", ".join(hidden),
        )
    return [text for name, config in configs.items() for text in _refused(name, kinds[name], config)]


def _refused(name: str, kind: str, config: Mapping[str, str]) -> Iterator[str]:
    for setting, (wanted, why) in REQUIRED[kind].items():
        found = config.get(setting)
        if found is not None and found != wanted:
            yield _to_mend(f"internal topic {name!r} has {setting}={found}: {why}", name, setting, wanted)
    kept_ms = int(config.get("delete.retention.ms", TOMBSTONES_KEPT_MS))
    if kind == "changelog" and kept_ms < TOMBSTONES_KEPT_MS:
        yield _to_mend(
            f"changelog {name!r} has delete.retention.ms={kept_ms}: deleted keys could come back from an older local "
            f"copy. It must be at least {TOMBSTONES_KEPT_MS}",
            name,
            "delete.retention.ms",
            str(TOMBSTONES_KEPT_MS),
        )


def _warn_unclean_election(configs: Mapping[str, Mapping[str, str]]) -> None:
    for name, config in configs.items():
        if config.get("unclean.leader.election.enable") == "true":
            log.warning(
                "internal topic %r has unclean.leader.election.enable=true: after a failure of brokers it may lose "
                "what is committed. Set it to false: kafka-configs.sh --alter --entity-type topics --entity-name %s "
                "--add-config unclean.leader.election.enable=false",
                name,
                name,
            )


def _to_mend(what: str, name: str, setting: str, wanted: str) -> str:
    return (
        f"{what}. Set it: kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config "
        f"{setting}={wanted}"
    )
