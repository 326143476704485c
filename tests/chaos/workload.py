"""What is fed, and what must come out of it.

Rule of this module: pure. The same seed gives the same records, and what an output must be is computed here from the
records alone, never from what the application says.

A payment is made by a user from a source; a source is a partition of the input topic. Nine of ten users pay from one
source only, the tenth from all of them. The topology groups payments by user, through a repartition topic, and keeps
for each user how many payments there were and a chain of all of them, in which the order counts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["EMPTY", "Payment", "Total", "chained", "payments"]

# The largest prime below 2**61: a chain is a polynomial of all payments so far in this field.
PRIME = (1 << 61) - 1
FACTOR = 1_000_003
# Every how many users one pays from all sources.
ROAMING = 10


@dataclass(frozen=True, slots=True)
class Payment:
    """One input record.

    Attributes:
        user: the key after the repartition.
        source: the partition of the input topic.
        number: the how-manieth of this user from this source, from 1.
        amount: any number; part of the chain.
    """

    user: str
    source: int
    number: int
    amount: int

    def encode(self) -> bytes:
        """As the input topic holds it."""
        return f"{self.user} {self.source} {self.number} {self.amount}".encode()

    @classmethod
    def parse(cls, text: str) -> Payment:
        """From the value of an input record."""
        user, source, number, amount = text.split()
        return cls(user, int(source), int(number), int(amount))


@dataclass(frozen=True, slots=True)
class Total:
    """One output record: a user's state after a payment, and which payment that was.

    Attributes:
        count: payments so far.
        chain: of all payments so far, in their order.
        source, number: the payment.
    """

    count: int
    chain: int
    source: int
    number: int

    def encode(self) -> str:
        """As the store and the output topic hold it."""
        return f"{self.count} {self.chain} {self.source} {self.number}"

    @classmethod
    def parse(cls, text: str) -> Total:
        """From the value of an output record."""
        count, chain, source, number = text.split()
        return cls(int(count), int(chain), int(source), int(number))


EMPTY = Total(0, 0, -1, 0)


def chained(total: Total, source: int, number: int, amount: int) -> Total:
    """The state after one more payment.

    >>> one = chained(EMPTY, 0, 1, 5)
    >>> chained(one, 1, 1, 7).chain == chained(chained(EMPTY, 1, 1, 7), 0, 1, 5).chain
    False
    """
    link = (source * 1_000_003 + number) * 1_000_003 + amount + 1
    return Total(total.count + 1, (total.chain * FACTOR + link) % PRIME, source, number)


def payments(seed: int, users: int, sources: int) -> Iterator[Payment]:
    """Without end, the same for the same seed; few users pay often, many seldom.

    Args:
        seed: of the random numbers.
        users: how many there are at most.
        sources: partitions of the input topic.
    """
    chance = random.Random(seed)
    draw = chance.random
    numbers: dict[tuple[int, int], int] = {}
    while True:
        user = int(users * draw() ** 2)
        source = int(sources * draw()) if user % ROAMING == 0 else user % sources
        number = numbers[user, source] = numbers.get((user, source), 0) + 1
        yield Payment(f"user-{user}", source, number, int(10_000 * draw()))
