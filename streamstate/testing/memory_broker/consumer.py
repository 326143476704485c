"""The group's consumer and the restore consumer on the in-memory broker.

Rule of this module: membership is worked on inside ``poll`` and ``close`` only, and so the listener is called
from there only. A member that does not poll is, to the group, silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from streamstate.engine.ports import Fenced, GroupMetadata, Position, RebalanceListener, Retriable, TopicPartition
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.client import Client, port
from streamstate.testing.memory_broker.fetcher import Fetcher
from streamstate.testing.memory_broker.groups import Group, Member
from streamstate.testing.memory_broker.log import MemoryMessage

__all__ = ["MemoryConsumer", "MemoryRestoreConsumer", "Protocol"]

Protocol = Literal["eager", "cooperative", "broker"]


class MemoryConsumer(Client):
    """Implements the port ``Consumer``.

    Args:
        broker: the broker.
        group: the consumer group.
        protocol: ``eager`` (everything is revoked before each rebalance; range), ``cooperative`` (sticky; what
            moves is revoked in one rebalance and assigned in the next) or ``broker`` (the broker moves
            partitions one by one and counts epochs).
        client_id: the actor in the broker's hook, and the start of member ids.
        instance_id: makes a static member, which keeps its place over a restart within the session.
        session_timeout_ms: silence after which the group drops the member.
    """

    kind = "consumer"

    def __init__(
        self,
        broker: MemoryBroker,
        group: str,
        protocol: Protocol = "cooperative",
        *,
        client_id: str = "consumer",
        instance_id: str | None = None,
        session_timeout_ms: int = 45_000,
    ) -> None:
        super().__init__(broker, client_id)
        self._group_name = group
        self._protocol = protocol
        self._instance_id = instance_id
        self._session_timeout_ms = session_timeout_ms
        self._topics: tuple[str, ...] = ()
        self._listener: RebalanceListener | None = None
        self._member: Member | None = None
        self._adopted = -1
        self._rejoin = False
        self._assigned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._fetcher = Fetcher(broker)
        self._closed = False

    @port
    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """See the port."""
        self._topics = tuple(topics)
        self._listener = listener
        if self._member is not None:
            self._member.topics = self._topics
            self._rejoin = True

    def poll(self, max_records: int, timeout_ms: int) -> Sequence[MemoryMessage]:
        """See the port. Where nothing is there it calls the broker's ``on_wait`` once and looks again."""
        self.hook("poll", "before")
        self._open()
        self.broker.require(timeout_ms)
        self._membership()
        records, moved = self._fetcher.fetch(max_records, self._paused)
        if not records and timeout_ms > 0 and self.broker.on_wait is not None:
            self.broker.on_wait(timeout_ms)
            if self._member is not None:
                self._member.last_seen_ms = self.broker.clock.monotonic_ms()
            self.broker.require()
            self._membership()
            records, moved = self._fetcher.fetch(max_records, self._paused)
        # Raising here loses the answer, not the records: the next poll reads them again.
        self.hook("poll", "after")
        self._fetcher.accept(moved)
        return records

    @port
    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See the port. Lifts a pause.

        Raises:
            ValueError: a partition is not assigned.
        """
        foreign = sorted(set(offsets) - self._assigned)
        if foreign:
            raise ValueError(f"not assigned to {self.client_id}: {foreign}")
        self._fetcher.positions.update(offsets)
        self._paused.difference_update(offsets)

    @port
    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """See the port."""
        self._paused.update(self._assigned.intersection(partitions))

    @port
    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """See the port."""
        self._paused.difference_update(partitions)

    @port
    def committed(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> dict[TopicPartition, Position | None]:
        """See the port. Where it has to wait it lets the time-out pass once and looks again."""
        self.broker.require(timeout_ms)
        group = self._group()
        if group.pending_for(partitions) and timeout_ms > 0:
            self.broker.give_up(timeout_ms)
            self.broker.require()
        pending = group.pending_for(partitions)
        if pending:
            raise Retriable(f"group {group.name}: offsets of {pending} are in a transaction that is not resolved")
        return {partition: group.offsets.get(partition) for partition in partitions}

    @port
    def group_metadata(self) -> GroupMetadata:
        """See the port. A client dropped from the group does not know it before its next poll."""
        if self._member is None:
            return GroupMetadata(-1, "", self._group_name)
        return GroupMetadata(self._member.generation, self._member.member_id, self._group_name)

    @port
    def commit(self, offsets: Mapping[TopicPartition, Position]) -> None:
        """See the port."""
        self.broker.require()
        group = self._group()
        member = self._member
        generation, member_id = (-1, "") if member is None else (member.generation, member.member_id)
        group.validate(generation, member_id, offsets)
        group.offsets.update(offsets)

    @port
    def lag(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """See the port."""
        seen, read = self._fetcher.seen_ends, self._fetcher.positions
        return {p: max(0, seen[p] - max(at, read.get(p, 0))) for p, at in positions.items() if p in seen}

    @port
    def close(self) -> None:
        """See the port. A static member does not leave: its place waits for its successor."""
        if self._closed:
            return
        if self.broker.available:
            self.broker.require()
        group, member = self._group(), self._member
        if member is not None and group.members.get(member.member_id) is not member:
            self._lose()
        self._revoke(self._assigned)
        if member is not None and self._instance_id is None and self.broker.available:
            group.leave(member.member_id)
        self._member = None
        self._closed = True

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self.client_id} is closed")

    def _group(self) -> Group:
        return self.broker.use_group(self._group_name)

    # Membership

    def _membership(self) -> None:
        """One step towards the group's present state."""
        if not self._topics:
            return
        group = self.broker.use_group(self._group_name, self._protocol)
        now = self.broker.clock.monotonic_ms()
        if self._member is not None and group.members.get(self._member.member_id) is not self._member:
            self._lose()
            self._fenced(group)
        if self._member is None:
            self._member = group.add(self.client_id, self._topics, self._session_timeout_ms, self._instance_id, now)
            self._adopted = -1
        self._member.last_seen_ms = now
        if group.incremental:
            self._reconcile(group, self._member)
        else:
            self._rebalance(group, self._member)

    def _fenced(self, group: Group) -> None:
        if self._instance_id and any(m.instance_id == self._instance_id for m in group.members.values()):
            raise Fenced(f"group {group.name}: another member took the instance id {self._instance_id!r}")

    def _rebalance(self, group: Group, member: Member) -> None:
        """Classic: join where a rebalance goes on, take over what a finished one gave."""
        if self._rejoin or (group.rebalancing and not member.joined):
            if self._protocol == "eager":
                self._revoke(self._assigned)
                if group.members.get(member.member_id) is not member:
                    return
            self._rejoin = False
            group.join(member, self._assigned)
        if group.rebalancing or member.generation == self._adopted:
            return
        self._adopted = member.generation
        given = set(member.assigned)
        gone = self._assigned - given
        if gone:
            self._revoke(gone)
            self._rejoin = True
        self._assign(given - self._assigned)

    def _reconcile(self, group: Group, member: Member) -> None:
        """Broker-side: let go first, take more in a later poll."""
        if self._rejoin:
            self._rejoin = False
            group.rebalance()
        gone = group.to_revoke(member)
        if gone:
            self._revoke(gone & self._assigned)
            group.released(member, gone)
            return
        group.advance(member)
        added = member.owned - self._assigned
        if added or self._adopted < 0:
            self._assign(added)
        self._adopted = member.generation

    def _assign(self, partitions: Iterable[TopicPartition]) -> None:
        added = sorted(partitions)
        self._assigned.update(added)
        if self._listener is not None:
            self._listener.on_assigned(added)

    def _revoke(self, partitions: Iterable[TopicPartition]) -> None:
        self._take(partitions, lambda listener, gone: listener.on_revoked(gone))

    def _lose(self) -> None:
        """The group went on without this member."""
        self._rejoin = False
        if self.broker.lost_as_revoked:
            self._revoke(self._assigned)
        else:
            self._member = None
            self._take(self._assigned, lambda listener, gone: listener.on_lost(gone))
        self._member = None

    def _take(
        self,
        partitions: Iterable[TopicPartition],
        tell: Callable[[RebalanceListener, Sequence[TopicPartition]], None],
    ) -> None:
        gone = sorted(partitions)
        if not gone:
            return
        try:
            if self._listener is not None:
                tell(self._listener, gone)
        finally:
            self._assigned.difference_update(gone)
            self._paused.difference_update(gone)
            self._fetcher.drop(gone)


class MemoryRestoreConsumer(Client):
    """Implements the port ``RestoreConsumer``.

    Args:
        broker: the broker.
        client_id: the actor in the broker's hook.
    """

    kind = "restore"

    def __init__(self, broker: MemoryBroker, *, client_id: str = "restore") -> None:
        super().__init__(broker, client_id)
        self._fetcher = Fetcher(broker)

    @port
    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See the port."""
        positions = self._fetcher.positions
        self._fetcher.drop([partition for partition in positions if partition not in offsets])
        for partition, offset in offsets.items():
            positions.setdefault(partition, offset)

    def poll(self, max_records: int, timeout_ms: int) -> Sequence[MemoryMessage]:
        """See the port. Where nothing is there it calls the broker's ``on_wait`` once and looks again."""
        self.hook("poll", "before")
        self.broker.require(timeout_ms)
        records, moved = self._fetcher.fetch(max_records)
        if not records and timeout_ms > 0 and self.broker.on_wait is not None:
            self.broker.on_wait(timeout_ms)
            self.broker.require()
            records, moved = self._fetcher.fetch(max_records)
        self.hook("poll", "after")
        self._fetcher.accept(moved)
        return records

    @port
    def positions(self) -> dict[TopicPartition, int]:
        """See the port."""
        return dict(self._fetcher.positions)

    @port
    def close(self) -> None:
        """See the port."""
        self._fetcher.positions.clear()
