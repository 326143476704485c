"""Consumer groups: members, generations, rebalances and committed offsets.

Rule of this module: the coordinator only answers requests (join, heartbeat, leave, commit); members do the rest
inside their own poll. Offsets are taken from present members only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from streamstate.engine.ports import Fenced, Position, TopicPartition
from streamstate.testing.memory_broker.assignors import Assignment, Assignor

__all__ = ["Group", "Member"]


@dataclass(slots=True)
class Member:
    """A member as the coordinator sees it.

    Attributes:
        generation: the group's when it last joined; under the broker-side protocol its own epoch.
        owned: what it said it holds (classic), or what the coordinator knows it holds (broker-side).
        assigned: what it was given in the present generation.
        joined: took part in the rebalance that goes on.
        last_seen_ms: its last heartbeat.
        since: epoch from which on it holds each of ``owned`` (broker-side).
    """

    member_id: str
    client_id: str
    topics: tuple[str, ...]
    session_timeout_ms: int
    instance_id: str | None = None
    generation: int = -1
    owned: set[TopicPartition] = field(default_factory=set)
    assigned: set[TopicPartition] = field(default_factory=set)
    joined: bool = False
    last_seen_ms: int = 0
    since: dict[TopicPartition, int] = field(default_factory=dict)


class Group:
    """One consumer group.

    Args:
        name: the group's id.
        protocol: ``eager``, ``cooperative`` or ``broker``.
        assignor: spreads partitions over members.
        topics: partition count of those of the given topics that exist.

    Attributes:
        generation: raised by every completed rebalance (classic), or by every change (broker-side).
        rebalancing: waits until every member has joined (classic only).
        offsets: committed offsets.
        pending: offsets of transactions that are not resolved, by producer id.
    """

    def __init__(
        self, name: str, protocol: str, assignor: Assignor, topics: Callable[[Collection[str]], dict[str, int]]
    ) -> None:
        self.name = name
        self.protocol = protocol
        self.generation = 0
        self.rebalancing = False
        self.members: dict[str, Member] = {}
        self.offsets: dict[TopicPartition, Position] = {}
        self.pending: dict[int, dict[TopicPartition, Position]] = {}
        self.assignor = assignor
        self._topics = topics
        self._counts: dict[str, int] = {}
        self._target: Assignment = {}
        self._joins = 0

    @property
    def incremental(self) -> bool:
        """The broker moves partitions one by one instead of stopping everyone at a barrier."""
        return self.protocol == "broker"

    # Membership

    def add(
        self, client_id: str, topics: Sequence[str], session_timeout_ms: int, instance_id: str | None, now_ms: int
    ) -> Member:
        """A new member, or the successor of the static member with this instance id."""
        self._joins += 1
        member = Member(f"{client_id}-{self._joins:06d}", client_id, tuple(topics), session_timeout_ms, instance_id)
        member.last_seen_ms = now_ms
        before = next((m for m in self.members.values() if instance_id and m.instance_id == instance_id), None)
        if before is None:
            self.members[member.member_id] = member
            self._change()
            return member
        # The successor takes the place, also in the order, and no rebalance happens unless one goes on.
        self.members = {
            (member.member_id if name == before.member_id else name): (member if name == before.member_id else m)
            for name, m in self.members.items()
        }
        member.assigned = before.assigned
        if self.incremental:
            member.owned, member.since = before.owned, before.since
        self._target[member.member_id] = self._target.pop(before.member_id, set())
        if self.rebalancing or before.topics != member.topics:
            self._change()
        else:
            member.generation = self.generation
            member.joined = True
        return member

    def join(self, member: Member, owned: Collection[TopicPartition]) -> None:
        """Take part in the rebalance with these partitions still held; start one where none goes on."""
        if not self.rebalancing:
            self._change()
        member.joined = True
        member.owned = set(owned)
        self._complete()

    def leave(self, member_id: str) -> None:
        """Remove the member; the rest rebalance."""
        if self.members.pop(member_id, None) is not None:
            self._change()
            self._complete()

    def expire(self, now_ms: int) -> None:
        """Remove members that were silent for longer than their session."""
        for member in list(self.members.values()):
            if now_ms - member.last_seen_ms > member.session_timeout_ms:
                self.leave(member.member_id)

    def refresh(self) -> None:
        """Rebalance when topics appeared, went or grew."""
        if self.members and not self.rebalancing and self._topics(self._subscribed()) != self._counts:
            self._change()

    def rebalance(self) -> None:
        """Start a rebalance for no reason."""
        if self.members:
            self._change()

    def _subscribed(self) -> list[str]:
        return sorted({topic for member in self.members.values() for topic in member.topics})

    def _change(self) -> None:
        if self.incremental:
            self._retarget()
            return
        self.rebalancing = True
        for member in self.members.values():
            member.joined = False

    def _complete(self) -> None:
        """End the classic rebalance when everyone has joined."""
        if not self.rebalancing or not all(member.joined for member in self.members.values()):
            return
        self.rebalancing = False
        self.generation += 1
        target = self._assign()
        owner = {partition: m.member_id for m in self.members.values() for partition in m.owned}
        for member in self.members.values():
            member.generation = self.generation
            # Cooperative: what another member still holds is given only in the rebalance after it let go.
            member.assigned = {
                p for p in target[member.member_id] if owner.get(p, member.member_id) == member.member_id
            }

    def _assign(self) -> Assignment:
        subscriptions = {member.member_id: member.topics for member in self.members.values()}
        self._counts = self._topics(self._subscribed())
        held = {member.member_id: sorted(member.owned) for member in self.members.values()}
        return self.assignor(subscriptions, self._counts, held)

    # The broker-side protocol

    def _retarget(self) -> None:
        self.generation += 1
        self._target = self._assign() if self.members else {}

    def to_revoke(self, member: Member) -> set[TopicPartition]:
        """What the member must let go of before it gets the group's epoch."""
        return member.owned - self._target.get(member.member_id, set())

    def released(self, member: Member, partitions: Collection[TopicPartition]) -> None:
        """The member let go of these."""
        member.owned.difference_update(partitions)
        for partition in partitions:
            member.since.pop(partition, None)

    def advance(self, member: Member) -> set[TopicPartition]:
        """Bring a member with nothing to let go of to the group's epoch and give it what no other member holds.
        Returns what was added."""
        member.generation = self.generation
        taken = {p for other in self.members.values() if other is not member for p in other.owned}
        added = self._target.get(member.member_id, set()) - member.owned - taken
        member.owned |= added
        member.since.update(dict.fromkeys(added, self.generation))
        return added

    # Offsets

    def validate(self, generation: int, member_id: str, partitions: Collection[TopicPartition]) -> None:
        """Refuse offsets that do not come from a present member under its present generation. Under the
        broker-side protocol an older epoch does for partitions held since then.

        A real broker takes offsets with generation -1 and an empty member id unchecked, also while the group has
        members. That is how a dropped member's offsets would slip in, so this model refuses them; a group without
        members takes them, as a real one does for tools that set offsets.

        Raises:
            Fenced: the group moved on.
        """
        member = self.members.get(member_id)
        if member is None:
            if not self.members and generation < 0:
                return
            name = repr(member_id) if member_id else "nobody"
            raise Fenced(f"group {self.name}: {name} is not a member (generation {self.generation})")
        present = member.generation if self.incremental else self.generation
        if generation == present:
            return
        held = self.incremental and all(member.since.get(p, present) <= generation for p in partitions)
        if generation > present or not held:
            raise Fenced(f"group {self.name}: generation {generation} of {member_id!r} is stale, it is {present} now")

    def pending_for(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        """Those with offsets in a transaction that is not resolved."""
        return [p for p in partitions if any(p in offsets for offsets in self.pending.values())]

    def resolve(self, producer_id: int, commit: bool) -> None:
        """The transaction's marker arrived."""
        offsets = self.pending.pop(producer_id, {})
        if commit:
            self.offsets.update(offsets)

    def forget(self, topic: str) -> None:
        """The topic was deleted: so were its offsets."""
        self.offsets = {p: offset for p, offset in self.offsets.items() if p.topic != topic}
        for producer_id, offsets in self.pending.items():
            self.pending[producer_id] = {p: offset for p, offset in offsets.items() if p.topic != topic}

    def assignment(self) -> Mapping[str, set[TopicPartition]]:
        """What each member was last given, by member id."""
        return {m.member_id: set(m.owned if self.incremental else m.assigned) for m in self.members.values()}
