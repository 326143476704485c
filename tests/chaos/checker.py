"""The check of every output against the recomputed truth.

Rule of this module: pure, and never lenient. What behind a repartition topic is promised, and so checked:

- A user's outputs stand in one partition, that of its key by murmur2.
- Each payment has exactly one output, and of one user and one source the outputs stand in the order of the payments.
  A user that pays from one source thus has exactly one right sequence of outputs.
- Between the sources of a user that pays from several, and between users, the order is free.
- Whatever the order, each output is the one before it of the same user plus its payment: the count is 1, 2, 3 ... n,
  and the chain is recomputed from the payments in the order that the outputs show.

At least once promises an output for each payment, and that is all: outputs come again, and what they say may count a
payment twice. Such outputs are counted and are no violation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from streamstate.partitioning import partition_for
from tests.chaos.workload import EMPTY, Payment, Total, chained

__all__ = ["Checked", "Digest", "Output", "Truth", "check"]

MAX_SHOWN = 10


class Output(NamedTuple):
    """One record of the output topic; within a partition in the order of their offsets."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Digest:
    """How many values there were by partition, and a hash of them in their order."""

    def __init__(self) -> None:
        self._hashes: dict[int, hashlib.blake2b] = {}
        self.counts: dict[int, int] = {}

    def add(self, partition: int, value: bytes) -> None:
        """One more value of this partition."""
        found = self._hashes.get(partition)
        if found is None:
            found = self._hashes[partition] = hashlib.blake2b(digest_size=16)
        found.update(b"%d:" % len(value))
        found.update(value)
        self.counts[partition] = self.counts.get(partition, 0) + 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and self._digests() == other._digests()

    __hash__ = None  # type: ignore[assignment]

    def _digests(self) -> dict[int, tuple[int, bytes]]:
        return {partition: (self.counts[partition], found.digest()) for partition, found in self._hashes.items()}


class Truth:
    """What was fed, by user and source: the amounts in their order."""

    def __init__(self) -> None:
        self.amounts: dict[str, dict[int, list[int]]] = {}
        self.records = 0
        self.digest = Digest()
        self.problems: list[str] = []

    def add(self, partition: int, value: bytes) -> None:
        """One more record of the input topic, in the order of its partition."""
        payment = Payment.parse(value.decode())
        amounts = self.amounts.setdefault(payment.user, {}).setdefault(payment.source, [])
        if payment.source != partition or payment.number != len(amounts) + 1:
            self.problems.append(f"input partition {partition}: {value!r} where payment {len(amounts) + 1} must be")
        amounts.append(payment.amount)
        self.records += 1
        self.digest.add(partition, value)


@dataclass(slots=True)
class Checked:
    """What was found.

    Attributes:
        outputs: records compared.
        expected: outputs that had to be there.
        missing: payments without an output.
        extra: outputs of a payment that had one already, or that was never made.
        out_of_order: outputs of a payment whose successor's output stands before it.
        wrong: outputs that are not the one before plus their payment, cannot be read, or stand in a wrong partition.
        undercounted: users whose last count is below their number of payments.
        shown: the first problems in words.
    """

    outputs: int = 0
    expected: int = 0
    missing: int = 0
    extra: int = 0
    out_of_order: int = 0
    wrong: int = 0
    undercounted: int = 0
    shown: list[str] = field(default_factory=list)

    def violations(self, guarantee: str) -> int:
        """How many of them break the guarantee."""
        if guarantee == "at_least_once":
            return self.missing
        return self.missing + self.extra + self.out_of_order + self.wrong + self.undercounted

    def show(self, text: str) -> None:
        """Keep it if it is among the first."""
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(text)


@dataclass(slots=True)
class _User:
    """What a user's outputs have said so far.

    Attributes:
        last: the last output.
        newest: by source, the highest number seen.
        gaps: numbers below the highest that were not seen.
    """

    last: Total = EMPTY
    newest: dict[int, int] = field(default_factory=dict)
    gaps: set[tuple[int, int]] = field(default_factory=set)


def check(truth: Truth, outputs: Iterable[Output], partitions: int) -> Checked:
    """Compare every output.

    Args:
        truth: what was fed.
        outputs: all of the output topic, read read_committed, each partition in order.
        partitions: of the output topic.
    """
    checked = Checked(expected=truth.records)
    users: dict[str, _User] = {}
    for output in outputs:
        checked.outputs += 1
        where = f"partition {output.partition}, offset {output.offset}"
        try:
            if output.key is None or output.value is None:
                raise ValueError("no key or no value")
            name, total = output.key.decode(), Total.parse(output.value.decode())
        except ValueError as error:
            checked.wrong += 1
            checked.show(f"{where} cannot be read: {error}")
            continue
        if partition_for(output.key, partitions) != output.partition:
            checked.wrong += 1
            checked.show(f"{where}: {name} belongs into partition {partition_for(output.key, partitions)}")
        amounts = truth.amounts.get(name, {}).get(total.source, ())
        if not 1 <= total.number <= len(amounts):
            checked.extra += 1
            checked.show(f"{where}: {name} never made payment {total.number} from source {total.source}")
            continue
        user = users.get(name)
        if user is None:
            user = users[name] = _User()
        _place(checked, user, name, total, where)
        # Against the output before it, as it is: one wrong output counts once.
        if chained(user.last, total.source, total.number, amounts[total.number - 1]) != total:
            checked.wrong += 1
            checked.show(f"{where}: {name} is {total} after {user.last}")
        user.last = total
    _missing(checked, truth, users)
    return checked


def _place(checked: Checked, user: _User, name: str, total: Total, where: str) -> None:
    newest = user.newest.get(total.source, 0)
    if total.number > newest:
        user.gaps.update((total.source, number) for number in range(newest + 1, total.number))
        user.newest[total.source] = total.number
    elif (total.source, total.number) in user.gaps:
        user.gaps.discard((total.source, total.number))
        checked.out_of_order += 1
        checked.show(f"{where}: {name}, source {total.source}: number {total.number} comes after {newest}")
    else:
        checked.extra += 1
        checked.show(f"{where}: {name}, source {total.source}: number {total.number} once more")


def _missing(checked: Checked, truth: Truth, users: dict[str, _User]) -> None:
    for name, sources in truth.amounts.items():
        user = users.get(name, _User())
        if user.last.count < sum(map(len, sources.values())):
            checked.undercounted += 1
            checked.show(f"{name} ends with {user.last.count} of {sum(map(len, sources.values()))} payments")
        lost = len(user.gaps) + sum(len(amounts) - user.newest.get(source, 0) for source, amounts in sources.items())
        if lost:
            checked.missing += lost
            checked.show(f"{name}: {lost} of {sum(map(len, sources.values()))} payments have no output")
