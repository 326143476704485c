"""The checker can fail: each deliberate weakening of the engine is found by the scenario.

Rule of this module: a weakening is switched on by patching, never by an option of the library, and the test says
within how many runs it was found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamstate.engine import Transaction, committing
from streamstate.engine.assignment import Assignment
from streamstate.engine.restore import Restorer
from streamstate.engine.task import Task
from streamstate.engine.transaction import State, TransactionFailed
from streamstate.engine.worker import Worker
from streamstate.state.staging import StagedStore
from streamstate.testing import MemoryAdmin
from tests.simulation.scenario import PROTOCOLS, Fault, Violation, calls_of, simulate

Patch = pytest.MonkeyPatch

MOST_RUNS = 400


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def faults(kind: str, *calls: str, phase: str = "before", markers: str = "prompt") -> Iterator[Fault]:
    """Faults at every one of these calls (at every call, if none is named), over the protocols."""
    for protocol in PROTOCOLS:
        for number, call in enumerate(calls_of(protocol, markers), 1):
            if not calls or call in calls:
                yield Fault(kind, protocol, number, phase, markers=markers)


def runs_until_found(search: Iterator[Fault]) -> tuple[int, str]:
    """How many runs it took, and what was found."""
    number = 0
    for number, fault in enumerate(search, 1):
        try:
            simulate(fault)
        except Violation as violation:
            return number, str(violation)
        if number >= MOST_RUNS:
            break
    pytest.fail(f"{number} runs did not notice the weakening")


# -- the weakenings ----------------------------------------------------------------------------------------


def apply_before_the_commit(patch: Patch) -> Iterator[Fault]:
    seal = Task.seal

    def sealed_and_applied(self: Task) -> Any:
        writes = seal(self)
        assert self.backend is not None
        self.backend.apply(writes, {}, {})
        return writes

    patch.setattr(Task, "seal", sealed_and_applied)
    return faults("crash", "producer.commit")


def a_timed_out_commit_counts_as_committed(patch: Patch) -> Iterator[Fault]:
    settled = Transaction.settled

    def optimistic(self: Transaction, timeout_ms: int) -> bool:
        try:
            return settled(self, timeout_ms)
        except TransactionFailed:
            if self.state is not State.DOWN:
                raise
            return True

    patch.setattr(Transaction, "settled", optimistic)
    return faults("timeout", "producer.commit")


def a_timed_out_commit_counts_as_failed(patch: Patch) -> Iterator[Fault]:
    """What was processed is processed again, without asking what is committed."""
    initialise = Assignment.initialise

    def from_memory(self: Assignment) -> None:
        asked = self._consumer.committed

        def known(partitions: Any, timeout_ms: int) -> Any:
            found = dict(asked(partitions, timeout_ms))
            for partition in partitions:
                if partition in offsets_before:
                    found[partition] = offsets_before[partition]
            return found

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._consumer, "committed", known, raising=False)
            initialise(self)

    offsets_before: dict[Any, Any] = {}
    sent: dict[Any, Any] = {}
    begin, settled = Transaction.begin_commit, Transaction.settled

    def noted(self: Transaction, offsets: Any, *arguments: Any) -> None:
        offsets_before.clear()
        sent.clear()
        sent.update(offsets)
        begin(self, offsets, *arguments)

    def pessimistic(self: Transaction, timeout_ms: int) -> bool:
        try:
            return settled(self, timeout_ms)
        except TransactionFailed:
            if self.state is State.DOWN:
                offsets_before.update({p: at._replace(offset=at.offset - 1) for p, at in sent.items()})
            raise

    patch.setattr(Transaction, "begin_commit", noted)
    patch.setattr(Transaction, "settled", pessimistic)
    patch.setattr(Assignment, "initialise", from_memory)
    return faults("timeout", "producer.commit", phase="after")


def restore_only_to_the_last_stable_offset(patch: Patch) -> Iterator[Fault]:
    def stable_ends(self: MemoryAdmin, partitions: Any) -> Any:
        return self._offsets(partitions, lambda log: log.last_stable)

    patch.setattr(MemoryAdmin, "log_ends", stable_ends)
    return faults("crash", markers="late")


def stop_restoring_at_an_empty_poll(patch: Patch) -> Iterator[Fault]:
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
    return faults("crash", markers="late")


def do_not_restore_at_all(patch: Patch) -> Iterator[Fault]:
    patch.setattr(Assignment, "_begin_restore", lambda self, task, *rest: self.run(task))
    return faults("none", "consumer.subscribe")


def do_not_discard_on_lost(patch: Patch) -> Iterator[Fault]:
    def careless(self: Worker, partitions: Any) -> None:
        self.assignment.revoked(partitions, keep_open=False)

    patch.setattr(Worker, "_lost", careless)
    return faults("expel")


def do_not_flush_a_changelog(patch: Patch) -> Iterator[Fault]:
    patch.setattr(committing, "changelog_records", lambda sealed, acknowledged: [])
    return faults("none", "consumer.subscribe")


def leave_the_last_changed_key_out_of_the_changelog(patch: Patch) -> Iterator[Fault]:
    records = committing.changelog_records
    patch.setattr(committing, "changelog_records", lambda *arguments: records(*arguments)[1:])
    return faults("none", "consumer.subscribe")


def keep_staged_entries_across_an_abort(patch: Patch) -> Iterator[Fault]:
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
    return faults("AbortRequired", "producer.commit")


def keep_the_cache_across_a_restore(patch: Patch) -> Iterator[Fault]:
    """The cache takes what is staged before the commit is certain, and outlives the rollback."""
    reset, forget = Task.reset, StagedStore.forget

    def reset_in_place(self: Task) -> None:
        old = self.stores
        for store in old.values():
            store._young.update({**store._sealed, **store.staged})
        reset(self)
        for name, store in old.items():
            if name in self.stores:
                self.stores[name]._young = store._young

    def forget_little(self: StagedStore) -> None:
        young = self._young
        forget(self)
        self._young = young

    patch.setattr(Task, "reset", reset_in_place)
    patch.setattr(StagedStore, "forget", forget_little)
    return faults("AbortRequired", "producer.commit")


def do_not_commit_before_a_revocation(patch: Patch) -> Iterator[Fault]:
    """The task goes without a commit, and its outputs stay in the transaction that another task's offsets end."""

    def hasty(self: Worker, partitions: Any) -> None:
        self.assignment.revoked(partitions, keep_open=False)

    patch.setattr(Worker, "_revoked", hasty)
    return faults("none", "consumer.subscribe")


def send_no_input_offsets(patch: Patch) -> Iterator[Fault]:
    patch.setattr(Task, "offsets", lambda self, **unmoved: {})
    return faults("crash")


WEAKENINGS: list[Callable[[Patch], Iterator[Fault]]] = [
    apply_before_the_commit,
    a_timed_out_commit_counts_as_committed,
    a_timed_out_commit_counts_as_failed,
    restore_only_to_the_last_stable_offset,
    stop_restoring_at_an_empty_poll,
    do_not_restore_at_all,
    do_not_discard_on_lost,
    do_not_flush_a_changelog,
    leave_the_last_changed_key_out_of_the_changelog,
    keep_staged_entries_across_an_abort,
    keep_the_cache_across_a_restore,
    do_not_commit_before_a_revocation,
    send_no_input_offsets,
]


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.__name__)
def test_the_weakening_is_found(
    weakening: Callable[[Patch], Iterator[Fault]], monkeypatch: Patch, record_property: Callable[[str, object], None]
) -> None:
    # The calls of the sound engine, before it is weakened.
    for protocol in PROTOCOLS:
        calls_of(protocol), calls_of(protocol, "late")
    runs, found = runs_until_found(weakening(monkeypatch))
    record_property("runs", runs)
    print(f"{weakening.__name__}: found in run {runs}\n{found}")
