"""The checker can fail: each deliberate weakening of the engine is found by the simulation, within so many seeds.

Rule of this module: a weakening is switched on by patching, never by an option of the library. The table says within
how many seeds each one has to be found; the test prints and records within how many it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from streamstate.engine.assign import assignment as assignments
from streamstate.engine.assign.assignment import Assignment
from streamstate.engine.assign.restore import Restorer
from streamstate.engine.commit import coordinator as committing
from streamstate.engine.commit.group_membership import GroupMembership
from streamstate.engine.commit.transaction import State, Transaction, TransactionFailed
from streamstate.engine.ports import GroupMetadata, Position, TopicPartition
from streamstate.engine.rebalance import RebalanceHandler
from streamstate.engine.task import error_policy as failures
from streamstate.engine.task.task import Task
from streamstate.state.mutable_entries import MutableEntryStore
from streamstate.state.staging import StagedStore
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.simulation import Campaign, chosen_kinds, find_workload

Patch = pytest.MonkeyPatch


# -- the store and Kafka -----------------------------------------------------------------------------------


def apply_the_store_before_the_commit(patch: Patch) -> None:
    seal = Task.seal

    def sealed_and_applied(self: Task) -> Any:
        writes = seal(self)
        assert self.backend is not None
        self.backend.apply(writes, {}, {})
        return writes

    patch.setattr(Task, "seal", sealed_and_applied)


def a_timed_out_commit_counts_as_committed(patch: Patch) -> None:
    settled = Transaction.settled

    def optimistic(self: Transaction, timeout_ms: int) -> bool:
        try:
            return settled(self, timeout_ms)
        except TransactionFailed:
            if self.state is not State.DOWN:
                raise
            return True

    patch.setattr(Transaction, "settled", optimistic)


def a_timed_out_commit_counts_as_failed(patch: Patch) -> None:
    """What was processed is processed again, from the offsets of the commit before, without asking what is there."""
    initialise, begin, settled = Assignment.initialise, Transaction.begin_commit, Transaction.settled
    sent: dict[int, dict[TopicPartition, Position]] = {}
    last: dict[TopicPartition, Position] = {}
    unknown: dict[TopicPartition, Position | None] = {}

    def noted(self: Transaction, offsets: Any, *arguments: Any) -> None:
        sent[id(self)] = dict(offsets)
        begin(self, offsets, *arguments)

    def pessimistic(self: Transaction, timeout_ms: int) -> bool:
        try:
            ended = settled(self, timeout_ms)
        except TransactionFailed:
            if self.state is State.DOWN:
                unknown.update({partition: last.get(partition) for partition in sent[id(self)]})
            raise
        if ended:
            last.update(sent.pop(id(self), {}))
        return ended

    def from_memory(self: Assignment) -> None:
        asked = self._consumer.committed

        def known(partitions: Any, timeout_ms: int) -> Any:
            return {**asked(partitions, timeout_ms), **{p: unknown.pop(p) for p in partitions if p in unknown}}

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._consumer, "committed", known, raising=False)
            initialise(self)

    patch.setattr(Transaction, "begin_commit", noted)
    patch.setattr(Transaction, "settled", pessimistic)
    patch.setattr(Assignment, "initialise", from_memory)


# -- restoring ---------------------------------------------------------------------------------------------


def restore_only_to_the_last_stable_offset(patch: Patch) -> None:
    def stable_ends(self: MemoryAdmin, partitions: Any) -> Any:
        return self._offsets(partitions, lambda log: log.last_stable)

    patch.setattr(MemoryAdmin, "log_ends", stable_ends)


def stop_restoring_at_an_empty_poll(patch: Patch) -> None:
    poll = Restorer.poll

    def impatient(self: Restorer, timeout_ms: int) -> list[Task]:
        before = self.records
        complete = poll(self, timeout_ms)
        if self.records > before or not self._active:
            return complete
        rest = {id(item.task): item.task for item in self._active.values()}
        self._active.clear()
        self._reassign()
        return [*complete, *rest.values()]

    patch.setattr(Restorer, "poll", impatient)


def do_not_restore_at_all(patch: Patch) -> None:
    patch.setattr(Assignment, "_begin_restore", lambda self, task, *rest: self.run(task))


def reuse_a_store_that_was_owned_elsewhere_without_replay(patch: Patch) -> None:
    """Where there is a local copy it is taken as it is, however long its task was with another worker."""
    starting_point = assignments.starting_point

    def trusting(task: Task, store: str, changelog: Any, stored: int | None, start: int, end: int, *rest: Any) -> int:
        return starting_point(task, store, changelog, stored, start, end, *rest) if stored is None else end

    patch.setattr(assignments, "starting_point", trusting)


# -- the group ---------------------------------------------------------------------------------------------


def do_not_discard_on_lost(patch: Patch) -> None:
    def careless(self: RebalanceHandler, partitions: Any) -> None:
        self.assignment.revoked(partitions, keep_open=False)

    patch.setattr(RebalanceHandler, "_lost", careless)


def send_offsets_with_fresh_metadata(patch: Patch) -> None:
    """The metadata of whatever membership there is when the offsets are sent, whoever owned the records then."""

    def fresh(self: GroupMembership) -> GroupMetadata:
        consumer: Any = self._consumer
        group = consumer.broker.group(consumer.group_metadata().token)
        own = consumer.group_metadata().member_id
        member = group.members.get(own) or next(iter(group.members.values()), None)
        if member is None:
            return consumer.group_metadata()  # type: ignore[no-any-return]
        generation = member.generation if group.incremental else group.generation
        return GroupMetadata(generation, member.member_id, group.name)

    patch.setattr(GroupMembership, "metadata_to_commit", fresh)


def do_not_commit_before_a_revocation(patch: Patch) -> None:
    """The task goes without a commit, and its outputs stay in the transaction that another task's offsets end."""

    def hasty(self: RebalanceHandler, partitions: Any) -> None:
        self.assignment.revoked(partitions, keep_open=False)

    patch.setattr(RebalanceHandler, "_revoked", hasty)


def commit_only_the_revoked_offsets(patch: Patch) -> None:
    """... while the transaction holds the outputs of tasks that stay."""
    revoked, offsets = RebalanceHandler._revoked, Task.offsets
    going: list[Task] = []

    def partial(self: RebalanceHandler, partitions: Any) -> None:
        going[:] = self.assignment.tasks_of(partitions)
        try:
            revoked(self, partitions)
        finally:
            going.clear()

    def only_theirs(self: Task, **unmoved: bool) -> Any:
        return offsets(self, **unmoved) if not going or self in going else {}

    patch.setattr(RebalanceHandler, "_revoked", partial)
    patch.setattr(Task, "offsets", only_theirs)


def send_no_input_offsets(patch: Patch) -> None:
    patch.setattr(Task, "offsets", lambda self, **unmoved: {})


# -- changelogs --------------------------------------------------------------------------------------------


def do_not_flush_a_changelog(patch: Patch) -> None:
    patch.setattr(committing, "changelog_records", lambda sealed, acknowledged: [])


def leave_the_first_changed_key_out_of_the_changelog(patch: Patch) -> None:
    records = committing.changelog_records

    def but_the_first(*arguments: Any) -> Any:
        for number, portion in enumerate(records(*arguments)):
            yield portion[1:] if number == 0 else portion

    patch.setattr(committing, "changelog_records", but_the_first)


def do_not_flush_the_changelog_of_a_task_that_leaves_in_order(patch: Patch) -> None:
    revoked, records = RebalanceHandler._revoked, committing.changelog_records
    leaving: list[Task] = []

    def marked(self: RebalanceHandler, partitions: Any) -> None:
        leaving[:] = self.assignment.tasks_of(partitions)
        try:
            revoked(self, partitions)
        finally:
            leaving.clear()

    def of_the_others(sealed: Any, acknowledged: Any) -> Any:
        return records([(task, writes) for task, writes in sealed if task not in leaving], acknowledged)

    patch.setattr(RebalanceHandler, "_revoked", marked)
    patch.setattr(committing, "changelog_records", of_the_others)


# -- staging and caches ------------------------------------------------------------------------------------


def keep_staged_entries_across_an_abort(patch: Patch) -> None:
    reset, run = Task.reset, Task.run
    kept: dict[int, dict[str, dict[bytes, Any]]] = {}

    def forgetful(self: Task) -> None:
        kept[id(self)] = {name: {**store._sealed, **store.staged} for name, store in self.stores.items()}
        reset(self)

    def resumed(self: Task) -> None:
        run(self)
        for name, staged in kept.pop(id(self), {}).items():
            self.stores[name].staged.update(staged)

    patch.setattr(Task, "reset", forgetful)
    patch.setattr(Task, "run", resumed)


def keep_the_decoded_cache_across_an_abort(patch: Patch) -> None:
    """The cache takes what is staged before the commit is certain, and outlives the roll-back."""
    reset = Task.reset

    def reset_in_place(self: Task) -> None:
        old = self.stores
        for store in old.values():
            store._young.update({**store._sealed, **store.staged})
        reset(self)
        for name, store in old.items():
            if name in self.stores:
                self.stores[name]._young.update(store._young)

    def forget_little(forget: Callable[[Any], None]) -> Callable[[Any], None]:
        def forgetful(self: StagedStore) -> None:
            young = dict(self._young)
            forget(self)
            self._young.update(young)

        return forgetful

    patch.setattr(Task, "reset", reset_in_place)
    patch.setattr(StagedStore, "forget", forget_little(StagedStore.forget))
    patch.setattr(MutableEntryStore, "forget", forget_little(MutableEntryStore.forget))


def take_a_restored_store_for_one_that_is_in_memory(patch: Patch) -> None:
    forget = MutableEntryStore.forget

    def sure(self: MutableEntryStore) -> None:
        forget(self)
        self._complete = True

    patch.setattr(MutableEntryStore, "forget", sure)


def take_a_sealed_slot_for_one_that_is_staged(patch: Patch) -> None:
    """What changes after the seal then never joins a transaction."""
    seal = MutableEntryStore.seal

    def leaves_them_dirty(self: MutableEntryStore) -> Any:
        writes = seal(self)
        for slot in self._sealed.values():
            slot.dirty = True
        return writes

    patch.setattr(MutableEntryStore, "seal", leaves_them_dirty)


def drop_uncommitted_slots_with_the_cache(patch: Patch) -> None:
    """They are read again from the backend, which does not have them yet."""
    patch.setattr(MutableEntryStore, "_kept", lambda self, key: self._old.get(key))
    init = MutableEntryStore.__init__

    def small(self: MutableEntryStore, *arguments: Any) -> None:
        init(self, *arguments)
        self.cache_bytes = 0

    patch.setattr(MutableEntryStore, "__init__", small)
    patch.setattr(Assignment, "share_cache", lambda self: None)


def leave_a_failed_records_writes_in_staging(patch: Patch) -> None:
    patch.setattr(failures, "rollback", lambda undo: undo.clear())


# -- partitioning and time ---------------------------------------------------------------------------------


def hash_repartition_keys_differently(patch: Patch) -> None:
    place = MemoryBroker.place

    def by_another_hash(self: MemoryBroker, topic: str, key: bytes | None, partition: int) -> TopicPartition:
        if topic.endswith("-repartition") and partition < 0 and key is not None:
            partition = zlib.crc32(key) % len(self.topic(topic).logs)
        return place(self, topic, key, partition)

    patch.setattr(MemoryBroker, "place", by_another_hash)


def forget_stream_time_with_the_process(patch: Patch) -> None:
    offsets = Task.offsets

    def without_time(self: Task, **unmoved: bool) -> Any:
        return {partition: at._replace(metadata="") for partition, at in offsets(self, **unmoved).items()}

    patch.setattr(Task, "offsets", without_time)


@dataclass(frozen=True, slots=True)
class Weakening:
    """One deliberate mistake.

    Attributes:
        make: switches it on.
        most_seeds: within which it has to be found.
        workload: the built-in topology; None: the seed chooses.
    """

    make: Callable[[Patch], None]
    most_seeds: int
    workload: str | None = None

    def __str__(self) -> str:
        return self.make.__name__


WEAKENINGS = [
    Weakening(apply_the_store_before_the_commit, 150),
    Weakening(a_timed_out_commit_counts_as_committed, 150),
    Weakening(a_timed_out_commit_counts_as_failed, 150),
    Weakening(restore_only_to_the_last_stable_offset, 150),
    Weakening(stop_restoring_at_an_empty_poll, 150),
    Weakening(do_not_restore_at_all, 150),
    Weakening(reuse_a_store_that_was_owned_elsewhere_without_replay, 150),
    Weakening(do_not_discard_on_lost, 150),
    Weakening(send_offsets_with_fresh_metadata, 150),
    Weakening(do_not_commit_before_a_revocation, 150),
    Weakening(commit_only_the_revoked_offsets, 150),
    Weakening(send_no_input_offsets, 150),
    Weakening(do_not_flush_a_changelog, 150),
    Weakening(leave_the_first_changed_key_out_of_the_changelog, 150),
    Weakening(do_not_flush_the_changelog_of_a_task_that_leaves_in_order, 150),
    Weakening(keep_staged_entries_across_an_abort, 150),
    Weakening(keep_the_decoded_cache_across_an_abort, 150),
    Weakening(take_a_restored_store_for_one_that_is_in_memory, 150),
    Weakening(take_a_sealed_slot_for_one_that_is_staged, 150),
    Weakening(drop_uncommitted_slots_with_the_cache, 150),
    Weakening(leave_a_failed_records_writes_in_staging, 150),
    Weakening(hash_repartition_keys_differently, 150),
    Weakening(forget_stream_time_with_the_process, 150),
]


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=str)
def test_the_weakening_is_found(
    weakening: Weakening, monkeypatch: Patch, record_property: Callable[[str, object], None]
) -> None:
    campaign = Campaign(find_workload(weakening.workload) if weakening.workload else None, chosen_kinds(None))
    weakening.make(monkeypatch)
    for seed in range(weakening.most_seeds):
        result = campaign.run(seed)
        if not result.ok:
            record_property("seeds", seed + 1)
            print(f"{weakening}: found in seed {seed} ({result.workload}): {result.problems[0]}")
            return
    pytest.fail(f"{weakening.most_seeds} seeds did not notice that the engine would {weakening}")


def test_the_seeds_that_find_them_are_clean_without_them() -> None:
    campaign = replace(Campaign(None, chosen_kinds(None)))
    assert all(campaign.run(seed).ok for seed in range(20))
