"""How a group's partitions are spread over its members.

Rule of this module: pure and deterministic, and partitions with the same number of topics with the same
partition count go to the same member, because a task needs them together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from streamstate.engine.ports import TopicPartition

__all__ = ["Assignment", "Assignor", "range_assignor", "sticky_assignor"]

Assignment = dict[str, set[TopicPartition]]

# (subscribed topics per member in the order of the group, partition count per topic, partitions held) -> new
Assignor = Callable[
    [Mapping[str, Collection[str]], Mapping[str, int], Mapping[str, Collection[TopicPartition]]], Assignment
]


def range_assignor(
    subscriptions: Mapping[str, Collection[str]],
    counts: Mapping[str, int],
    held: Mapping[str, Collection[TopicPartition]],
) -> Assignment:
    """Per topic, members in order get neighbouring partitions; the first ones get one more.

    >>> range_assignor({"a": ["t"], "b": ["t"]}, {"t": 3}, {})["a"] == {("t", 0), ("t", 1)}
    True
    """
    assignment: Assignment = {member: set() for member in subscriptions}
    for topic, count in counts.items():
        members = [member for member, topics in subscriptions.items() if topic in topics]
        for index, member in enumerate(members):
            share, more = divmod(count, len(members))
            first = index * share + min(index, more)
            last = first + share + (1 if index < more else 0)
            assignment[member].update(TopicPartition(topic, number) for number in range(first, last))
    return assignment


def sticky_assignor(
    subscriptions: Mapping[str, Collection[str]],
    counts: Mapping[str, int],
    held: Mapping[str, Collection[TopicPartition]],
) -> Assignment:
    """Balanced, moving as little as possible. Kafka's own sticky assignors do not keep partitions of the same
    number together; this one does.

    >>> sticky_assignor({"a": ["t"], "b": ["t"]}, {"t": 2}, {"a": [TopicPartition("t", 1)]})["a"] == {("t", 1)}
    True
    """
    assignment: Assignment = {member: set() for member in subscriptions}
    families: dict[tuple[tuple[str, ...], int], list[str]] = {}
    for topic in sorted(counts):
        members = tuple(member for member, topics in subscriptions.items() if topic in topics)
        families.setdefault((members, counts[topic]), []).append(topic)
    for (members, count), topics in families.items():
        if members:
            owners = _spread(members, count, topics, assignment, held)
            for number, member in owners.items():
                assignment[member].update(TopicPartition(topic, number) for topic in topics)
    return assignment


def _spread(
    members: tuple[str, ...],
    count: int,
    topics: list[str],
    assignment: Assignment,
    held: Mapping[str, Collection[TopicPartition]],
) -> dict[int, str]:
    """Owner of each partition number of one family of topics."""
    order = {member: position for position, member in enumerate(members)}
    share, more = divmod(count, len(members))
    kept: dict[str, list[int]] = {}
    for member in members:
        numbers = {partition.partition for partition in held.get(member, ()) if partition.topic in topics}
        kept[member] = sorted(number for number in numbers if number < count)
    owners: dict[int, str] = {}
    # Who holds most may keep the one more that some members get.
    for member in sorted(members, key=lambda name: (-len(kept[name]), order[name])):
        room = share + (1 if more and len(kept[member]) > share else 0)
        taken = [number for number in kept[member] if number not in owners][:room]
        more -= len(taken) > share
        owners.update(dict.fromkeys(taken, member))
    load = {member: sum(1 for owner in owners.values() if owner == member) for member in members}
    for number in range(count):
        if number not in owners:
            member = min(members, key=lambda name: (load[name], len(assignment[name]), order[name]))
            owners[number] = member
            load[member] += 1
    return owners
