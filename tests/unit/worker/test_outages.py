"""Brokers that do not answer."""

from __future__ import annotations

import logging

import pytest

from streamstate import BrokerUnavailable
from streamstate.engine.flow.outage import OutageMonitor
from streamstate.engine.ports import Retriable
from streamstate.testing.memory_broker.clock import ManualClock
from tests.unit.application_support import Run
from tests.unit.worker.support import counting, long, raising

# -- brokers that do not answer --------------------------------------------------------------------------------


def test_it_outlives_an_outage_below_the_limit_and_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(counting(), broker_timeout_ms=600_000)
    run.send(b"1")
    run.ticks()
    run.broker.stop()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run.ticks(100, step_ms=3_000)
    lines = [record for record in caplog.records if "still trying" in record.getMessage()]
    assert 3 <= len(lines) <= 7
    run.broker.restart()
    run.send(b"2")
    run.ticks(20, step_ms=500)
    assert run.out() == [(b"k", long(1)), (b"k", long(2))]
    # Another outage has the whole limit again.
    run.broker.stop()
    run.ticks(100, step_ms=3_000)


def test_it_gives_up_after_the_limit_and_nothing_is_lost() -> None:
    run = Run(counting(), broker_timeout_ms=60_000)
    run.send(b"1")
    run.ticks()
    run.send(b"2")
    run.ticks(1)
    run.broker.stop()
    with pytest.raises(BrokerUnavailable, match=r"no broker has answered for 6\d s .*--broker-timeout"):
        run.ticks(100, step_ms=3_000)
    run.workers.pop("w").close(commit=False)
    run.broker.restart()
    run.clock.advance(60_000)
    run.start()
    run.ticks(10)
    assert run.out() == [(b"k", long(1)), (b"k", long(2))]


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize(
    "calls",
    [
        ("producer.flush", "producer.commit", "producer.send_offsets", "consumer.commit"),
        ("producer.flush", "consumer.committed"),
        ("producer.flush", "producer.commit", "producer.abort", "producer.init", "consumer.committed"),
    ],
    ids=lambda calls: calls[-1],
)
def test_commits_that_never_succeed_count_as_an_outage(calls: tuple[str, ...], exactly_once: bool) -> None:
    """The client answers polls from what it has: only commits and questions tell that nobody is there."""
    run = Run(counting(), broker_timeout_ms=120_000, commit_timeout_ms=10_000, exactly_once=exactly_once)
    run.send(b"1")
    run.ticks()
    hook = raising(*calls)

    def slow(actor: str, call: str, phase: str) -> None:
        try:
            hook(actor, call, phase)
        except Retriable:
            run.clock.advance(1_000)
            raise

    run.broker.on_call = slow
    run.send(b"2")
    with pytest.raises(BrokerUnavailable):
        run.ticks(400, step_ms=1_000)


def test_failures_with_nothing_to_do_between_them_are_not_an_outage() -> None:
    clock = ManualClock()
    patience = OutageMonitor(clock, limit_ms=600_000)
    # The partitions went elsewhere after each: nothing was committed in between, and nothing had to be.
    for _ in range(5):
        patience.rollback("fenced")
        clock.advance(900_000)
        patience.answered()
    for _ in range(10):
        patience.rollback("timed out")
        clock.advance(60_000)
    with pytest.raises(BrokerUnavailable, match="no transaction has succeeded for 600 s"):
        patience.rollback("timed out")
