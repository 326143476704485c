"""Chaos on a real broker: every kind of fault once or twice (``make chaos-short``). ``make chaos`` does it for ten
minutes."""

from __future__ import annotations

import os
import sys

import pytest
from rich.console import Console

from tests.broker_support import VARIABLE
from tests.chaos.program import Order, perform
from tests.chaos.report import draw
from tests.chaos.schedule import SHORT

pytestmark = [
    pytest.mark.broker,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.environ.get(VARIABLE, "embedded") not in ("", "embedded"),
        reason="only the embedded broker can be killed from here",
    ),
]

# Short, because most of the time is spent waiting for them to end.
SESSION_S, TRANSACTION_S = 3.0, 5.0
SEED = 1


def test_exactly_once_and_at_least_once_survive_every_kind_of_fault() -> None:
    # The broker's restart takes longest, and is the same for both.
    some = {"kill": 1, "stop": 1, "wipe": 1}
    console = Console(file=sys.stdout, width=120)
    reports = perform(
        [
            Order("exactly_once", 100_000, 45, SEED, SHORT, 6, 30_000, SESSION_S, TRANSACTION_S),
            Order("at_least_once", 30_000, 12, SEED, some, 6, 10_000, SESSION_S, TRANSACTION_S),
        ],
        console,
    )
    console.print(draw(reports))
    exactly, at_least = reports
    assert not exactly.violations, exactly.violations
    assert not at_least.violations, at_least.violations
    assert exactly.faults == {**dict.fromkeys(exactly.faults, 0), **SHORT}
    assert exactly.checked.outputs == exactly.records >= 100_000
    assert at_least.checked.outputs >= at_least.records >= 30_000
    assert exactly.aborted_transactions > 0, "no fault found a transaction open"
    assert any(outcome.restores for outcome in exactly.outcomes)
