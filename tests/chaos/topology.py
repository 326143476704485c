"""The topology under chaos: payments by user, in a keyed aggregate behind a repartition topic; and that of the soak.

``streamstate run tests/chaos/topology.py:exactly_once`` or ``:at_least_once``, which differ in their topics; ``:soak``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from streamstate import Topology, serde

# Loaded by path, from any directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.chaos.workload import EMPTY, Payment, Total, chained

STORE = "totals"
SOAK_INPUT, SOAK_OUTPUT = "keys", "counts"
GUARANTEES = ("exactly_once", "at_least_once")


def topics(guarantee: str) -> tuple[str, str]:
    """Names of the input and the output topic."""
    return f"payments-{guarantee}", f"totals-{guarantee}"


def _user(key: bytes | None, payment: str) -> str:
    return payment[: payment.index(" ")]


def _add(user: str, payment: str, total: str) -> str:
    parsed = Payment.parse(payment)
    return chained(Total.parse(total), parsed.source, parsed.number, parsed.amount).encode()


def _topology(guarantee: str) -> Topology:
    payments, totals = topics(guarantee)
    topology = Topology(f"chaos-{guarantee}")
    (
        topology.stream(payments, value=serde.string())
        .group_by(_user, key=serde.string(), value=serde.string())
        .aggregate(initializer=EMPTY.encode, aggregator=_add, value=serde.string(), store=STORE)
        .to_stream()
        .to(totals, value=serde.string())
    )
    return topology


def exactly_once() -> Topology:
    """For ``--processing-guarantee exactly_once``."""
    return _topology("exactly_once")


def at_least_once() -> Topology:
    """For ``--processing-guarantee at_least_once``."""
    return _topology("at_least_once")


def soak() -> Topology:
    """Counts by key, for ``soak_memory.py``."""
    topology = Topology("soak")
    (
        topology.stream(SOAK_INPUT, key=serde.string(), value=serde.bytes_())
        .group_by_key()
        .count(store="counts")
        .to_stream()
        .map_values(str)
        .to(SOAK_OUTPUT, value=serde.string())
    )
    return topology
