"""Read the rows of global tables: whole, in every process, outside the group and outside transactions.

Rows and the offset that they reflect are written in one step, so a crash leaves rows that are right as of some offset,
and reading goes on from there. The rows are complete when every partition's position has reached the end that its log
had at the start. That end is read_uncommitted, so an open transaction in the topic delays the start until it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from streamstate.engine.flow.batches import by_partition
from streamstate.engine.ports import (
    Admin,
    Message,
    OutOfRange,
    RestoreConsumer,
    TopicInfo,
    TopicPartition,
    Unavailable,
)
from streamstate.engine.task.store_marks import mark_fact, mark_of
from streamstate.engine.task.task import TaskId
from streamstate.errors import SerdeError
from streamstate.graph.node import GlobalTableSpec, Graph
from streamstate.operators.base.compilation import Rebuild
from streamstate.operators.table.runtime import rebuilt
from streamstate.operators.topics.spec import Source
from streamstate.state.backend import Backend
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import StagedStore

log = logging.getLogger("streamstate.globals")

# Not a valid name of a sub-topology.
GLOBAL_TASK = TaskId("@global", 0)
CACHE_BYTES = 4 << 20

# As ``assignment.OpenBackend``.
OpenBackend = Callable[[TaskId, Sequence[str], bool], Backend]


class GlobalState:
    """The global tables of one process.

    Args:
        graph: the topology.
        admin: the cluster.
        consumer: makes the consumer that reads the topics.
        open_backend: opens the state.
        batch: most records per poll.

    Attributes:
        stores: by name; filled when the state is opened.
        complete: true once the tables hold all rows that existed at the start.
    """

    def __init__(
        self,
        graph: Graph,
        admin: Admin,
        consumer: Callable[[], RestoreConsumer],
        open_backend: OpenBackend,
        batch: int,
    ) -> None:
        self._tables = graph.global_tables
        self._admin = admin
        self._make_consumer = consumer
        self._open_backend = open_backend
        self._batch = batch
        self._consumer: RestoreConsumer | None = None
        self._backend: Backend | None = None
        self._store_of = {table.topic: name for name, table in self._tables.items()}
        self._rebuild: dict[str, Rebuild] = {name: _rebuild(table) for name, table in self._tables.items()}
        self._targets: dict[TopicPartition, int] = {}
        self.stores: dict[str, StagedStore] = {}
        self.complete = not self._tables
        self.skipped = 0

    # -- opening -------------------------------------------------------------------------------------------

    def _open(self) -> RestoreConsumer:
        if self._backend is None:
            # Another process' copy is no concern of this one: each has its own.
            backend = self._open_backend(GLOBAL_TASK, tuple(self._tables), True)
            self._backend = backend
            for name, table in self._tables.items():
                self.stores[name] = staged_store(table.store, backend, CACHE_BYTES)
        if self._consumer is None:
            self._consumer = self._make_consumer()
            try:
                self._consumer.assign(self._starting_points())
            except BaseException:
                self._consumer.close()
                self._consumer = None
                raise
        return self._consumer

    def _starting_points(self) -> dict[TopicPartition, int]:
        backend = self._backend
        assert backend is not None, "asked before it was opened"
        infos = self._admin.topics(self._store_of)
        partitions = [TopicPartition(topic, n) for topic, info in infos.items() for n in range(info.partitions)]
        starts, ends = self._admin.log_starts(partitions), self._admin.log_ends(partitions)
        missing = [topic for topic in self._store_of if topic not in infos]
        missing += [str(partition) for partition in partitions if partition not in ends or partition not in starts]
        if missing:
            raise Unavailable(f"topics of global tables do not exist: {', '.join(missing)}")
        # A store that was cleared because it was old has no position any more; its offsets are still there.
        facts, known, filled = backend.facts(), backend.offsets(), backend.positions()
        points: dict[TopicPartition, int] = {}
        for topic, name in self._store_of.items():
            mine = [partition for partition in partitions if partition.topic == topic]
            fact, topic_id = f"topic_id:{name}", infos[topic].topic_id
            mark = mark_of(self._tables[name].store).text()
            positions = {partition: known.get((partition.topic, partition.partition)) for partition in mine}
            if any(position is not None for position in positions.values()):
                # What has come since is read from its beginning, behind the rows that are there.
                added = [partition for partition, position in positions.items() if position is None]
                positions.update({partition: starts[partition] for partition in added})
                self._begin_added(name, added, starts)
            usable = (
                name in filled
                and facts.get(mark_fact(name), mark) == mark
                and facts.get(fact, "") == topic_id
                and all(
                    position is not None and starts[partition] <= position <= ends[partition]
                    for partition, position in positions.items()
                )
            )
            if not usable:
                # Rows that were deleted meanwhile would stay: read it from the start.
                backend.clear(name)
                self.stores[name].forget()
                positions = dict(starts)
                offsets = {(p.topic, p.partition): starts[p] for p in mine}
                backend.apply({}, {name: 0}, offsets, current=False)
                backend.note({fact: topic_id, mark_fact(name): mark})
            for partition in mine:
                position = positions[partition]
                assert position is not None, "no position to start from"
                points[partition] = position
        self._targets = ends
        return points

    def partitions_added(self, topics: Mapping[str, TopicInfo]) -> None:
        """Read partitions that were added to the topics meanwhile, from their beginning.

        Args:
            topics: as they exist now.

        Raises:
            Unavailable: no broker answers; the next call tries again.
        """
        if self._consumer is None:
            return
        added = [
            partition
            for topic in self._store_of
            for number in range(topics[topic].partitions if topic in topics else 0)
            if (partition := TopicPartition(topic, number)) not in self._targets
        ]
        if not added:
            return
        starts, ends = self._admin.log_starts(added), self._admin.log_ends(added)
        added = [partition for partition in added if partition in starts and partition in ends]
        for topic, name in self._store_of.items():
            self._begin_added(name, [partition for partition in added if partition.topic == topic], starts)
        self._consumer.assign({**self._consumer.positions(), **{p: starts[p] for p in added}})
        self._targets.update({partition: ends[partition] for partition in added})

    def _begin_added(self, name: str, added: Sequence[TopicPartition], starts: Mapping[TopicPartition, int]) -> None:
        if not added:
            return
        assert self._backend is not None, "read before it was opened"
        # Also of partitions that stay empty, so that each counts as added only once.
        offsets = {(partition.topic, partition.partition): starts[partition] for partition in added}
        self._backend.apply({}, {}, offsets, current=self.complete)
        log.warning(
            "global table %r: topic %r has got partitions %s, which are read from their beginning. Keys that have "
            "moved there have rows in two partitions, and a copy that is read anew may take either: write the rows to "
            "a topic that has had its partitions from the beginning",
            name,
            added[0].topic,
            ", ".join(str(partition.partition) for partition in added),
        )

    # -- reading -------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Read records that are there; before the tables are complete, wait for them a little.

        Raises:
            SerdeError: a record cannot be decoded.
            Retriable: the broker does not answer, or the state cannot be opened yet.
        """
        if not self._tables:
            return
        consumer = self._open()
        try:
            messages = consumer.poll(self._batch, 0 if self.complete else 10)
        except OutOfRange as error:
            log.warning("a global table's topic was cut off while it was read, it is read anew: %s", error)
            self._consumer = None
            consumer.close()
            return
        for partition, group in by_partition(messages, len(self._tables) == 1):
            self._apply(partition, group)
        if not self.complete:
            positions = consumer.positions()
            self.complete = all(positions.get(p, 0) >= target for p, target in self._targets.items())
            if self.complete:
                assert self._backend is not None, "read before it was opened"
                self._backend.apply({}, {}, {})
                log.info("global tables are complete: %s", ", ".join(self._tables))

    def _apply(self, partition: TopicPartition, messages: Sequence[Message]) -> None:
        assert self._backend is not None, "read before it was opened"
        name = self._store_of[partition.topic]
        rebuild, table = self._rebuild[name], self._tables[name]
        entries: dict[bytes, bytes | None] = {}
        for message in messages:
            key = message.key()
            if key is None:
                continue
            try:
                made = rebuild(key, message.value(), message.timestamp()[1])
            except Exception as error:
                if table.skip:
                    self.skipped += 1
                    continue
                raise SerdeError(
                    f"global table {name!r}: topic {message.topic()!r}, partition {message.partition()}, offset "
                    f"{message.offset()} cannot be decoded: {error!r}. Mend the serdes or the timestamp= of the table, "
                    f"or leave such records out: global_table(..., on_error='continue')"
                ) from error
            if made is not None:
                entries[made[0]] = made[1]
        after = messages[-1].offset() + 1
        # The position only marks the store as filled; the offsets say which records it reflects.
        offsets = {(partition.topic, partition.partition): after}
        self._backend.apply({name: entries}, {name: 0}, offsets, current=self.complete)
        self.stores[name].outdated(entries)

    def behind(self) -> bool:
        """Return true while the topics have records that were not read yet; asks the broker."""
        if not self._tables:
            return False
        if self._consumer is None or not self.complete:
            return True
        positions = self._consumer.positions()
        ends = self._admin.log_ends(positions)
        return any(positions[partition] < end for partition, end in ends.items())

    def close(self) -> None:
        """Stop reading and release the state."""
        consumer, self._consumer = self._consumer, None
        backend, self._backend = self._backend, None
        try:
            if consumer is not None:
                consumer.close()
        finally:
            if backend is not None:
                backend.close()


def _rebuild(table: GlobalTableSpec) -> Rebuild:
    source = Source((table.topic,), table.store.key, table.store.value, table.timestamp)
    return rebuilt(source)
