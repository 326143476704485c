"""The application's metadata topic: the marks of its stores, which every process reads before it joins the group.

The topic is compacted and has one partition. It holds the newest mark of each store of each task, under
``store:NAME/PARTITION``, written in the transaction that writes the store. It refuses early; the mark in the changelog
of each task decides in the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

from streamstate.engine.ports import Admin, NotAuthorized, Output, RestoreConsumer, TopicPartition
from streamstate.engine.task.store_marks import (
    MARK_KEY,
    StoreMark,
    added_and_removed,
    describe_changes,
    mark_of,
    reconcile,
)
from streamstate.engine.task.task import Task
from streamstate.errors import TopologyError
from streamstate.graph.names import changelog_topic, metadata_topic
from streamstate.graph.node import Graph
from streamstate.state.window_index import NO_TIME

log = logging.getLogger("streamstate.topics")

_STORE = b"store:"
_POLL_MS = 100
# An open transaction of a process that was killed may hide the newest marks until the broker aborts it. The marks in
# the changelogs are looked at in any case, so that this is not waited for.
_MOST_POLLS = 30


def topology_mark(graph: Graph) -> str:
    """Return a short text that differs between topologies with other topics, stores or ready aggregates.

    The client ids of an application's consumers end with it, so that other members see which version it runs.

    >>> from streamstate import Topology
    >>> topology = Topology("t")
    >>> _ = topology.stream("in")
    >>> topology_mark(topology.build())
    '610cc4a0'
    """
    parts = [(part.name, sorted(part.source_topics), sorted(part.stores)) for part in graph.subtopologies]
    folded = sorted((name, spec.aggregates) for name, spec in graph.stores.items() if spec.aggregates)
    return f"{crc32(repr((sorted(parts), sorted(graph.global_tables), folded)).encode()):08x}"


def mark_records(
    application_id: str, writes: Sequence[tuple[Task, Mapping[str, Mapping[bytes, bytes | None]]]]
) -> list[Output]:
    """Return the records for the metadata topic: the marks among the writes of a commit."""
    topic = metadata_topic(application_id)
    return [
        (topic, entries[MARK_KEY], _STORE + f"{store}/{task.id.partition}".encode(), 0, None, None, None)
        for task, stores in writes
        for store, entries in stores.items()
        if MARK_KEY in entries
    ]


def read_marks(
    application_id: str, admin: Admin, restore_consumer: Callable[[], RestoreConsumer]
) -> dict[str, tuple[StoreMark, ...]]:
    """Read the committed marks of each store that the application ever had; tasks may differ for a while.

    Raises:
        TaskCorrupted: a newer version of streamstate wrote one.
        Unavailable: no broker answers.
    """
    partition = TopicPartition(metadata_topic(application_id), 0)
    start, end = admin.log_starts([partition]).get(partition, 0), admin.log_ends([partition]).get(partition, 0)
    if start == end:
        return {}
    marks: dict[str, str] = {}
    consumer = restore_consumer()
    try:
        consumer.assign({partition: start})
        for _ in range(_MOST_POLLS):
            for message in consumer.poll(1_000, _POLL_MS):
                key, value = message.key(), message.value()
                if key is not None and key.startswith(_STORE) and value is not None:
                    marks[key[len(_STORE) :].decode()] = value.decode()
            if consumer.positions().get(partition, start) >= end:
                break
    finally:
        consumer.close()
    found: dict[str, dict[str, StoreMark]] = {}
    for at, text in marks.items():
        store = at.rpartition("/")[0]
        found.setdefault(store, {})[text] = StoreMark.parsed(store, text)
    return {store: tuple(of_tasks.values()) for store, of_tasks in found.items()}


def refuse_going_back(
    graph: Graph, application_id: str, marks: Mapping[str, tuple[StoreMark, ...]], admin: Admin
) -> None:
    """Refuse an earlier version of the ready aggregates while the group has members that may run the later one.

    What the later one has added would be dropped and counted anew each time a task moves between the two. Members that
    run this version do no harm: they are the other processes that go back.

    Raises:
        TopologyError: there are such members.
    """
    ending = f".{topology_mark(graph)}"
    for name, spec in graph.stores.items():
        earlier = [
            stored
            for stored in marks.get(name, ())
            if spec.aggregates in stored.aggregates[:-1] and spec.aggregates != stored.aggregates[-1]
        ]
        if not earlier:
            continue
        try:
            members = [member for member in admin.members(application_id) if not member.client_id.endswith(ending)]
        except NotAuthorized:
            # Then the tasks tell: a process of the later version ends when it is given what this one has changed.
            return
        if members:
            names = ", ".join(aggregate for aggregate, _ in earlier[0].aggregates[-1])
            clients = ", ".join(sorted({member.client_id for member in members}))
            raise TopologyError(
                f"store {name!r} has the ready aggregates {names} by now, and group {application_id!r} has members "
                f"that may run with them ({clients}). To go back to the earlier ones, stop all processes first; one "
                f"that was killed is in the group until its session time-out, 10 s by default, is over"
            )


def check_marks(graph: Graph, application_id: str, marks: Mapping[str, tuple[StoreMark, ...]]) -> None:
    """Refuse stores that the topology cannot go on with, and log those that it does not use any more.

    Args:
        graph: with what was decided about changelogs.
        application_id: of the application.
        marks: of its stores.

    Raises:
        TopologyError: stores cannot be used; the message names each.
    """
    refused = []
    for name, spec in graph.stores.items():
        lines = set()
        for stored in marks.get(name, ()):
            if stored.changelog == "topic" and spec.reuse:
                # It is made anew from the table's topic.
                continue
            try:
                reconcile(spec, stored, NO_TIME)
            except TopologyError as error:
                refused.append(str(error))
                break
            lines.add(describe_changes(*added_and_removed(stored, mark_of(spec))))
        for line in sorted(lines - {""}):
            log.warning("store %r: %s", name, line)
    if refused:
        raise TopologyError("\n".join(refused))
    known = {*graph.stores, *graph.global_tables}
    for name, (stored, *_) in marks.items():
        if name not in known:
            log.warning(
                "store %r (%s) is not in the topology any more. Its state stays%s and is neither read nor written. If "
                "the store was only given another name, the new one starts empty",
                name,
                stored.content,
                f" in topic {changelog_topic(application_id, name)!r}" if stored.changelog == "own" else "",
            )
