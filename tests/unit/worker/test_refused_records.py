"""Records that a broker does not take."""

from __future__ import annotations

import pytest

from streamstate import ProcessingError, Processor, Topology, serde
from streamstate.engine.ports import Unavailable
from tests.unit.application_support import START_MS, Run
from tests.unit.worker.support import TEXT, raising

# -- records a broker does not take ----------------------------------------------------------------------------


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_refused_record_ends_the_worker_with_an_error_and_no_loop(exactly_once: bool) -> None:
    topology = Topology("t")
    topology.stream("in").map_values(lambda value: value * 1_000).to("out", value=serde.bytes_())
    run = Run(topology, exactly_once=exactly_once)
    run.broker.create_topic("small", 1)
    run.broker.topic("out").config["max.message.bytes"] = "5000"
    run.send(b"a")
    run.ticks()
    run.send(b"much too large")
    with pytest.raises(ProcessingError, match=r"MSG_SIZE_TOO_LARGE.*max\.message\.bytes|max\.message\.bytes"):
        run.ticks(10)
    run.workers.pop("w").close(commit=False)
    assert run.out() == [(b"k", b"a" * 1_000)]
    assert run.offset() == 1
    # Started again it meets the same record: again one error.
    run.start()
    with pytest.raises(ProcessingError):
        run.ticks(10)


def test_a_topic_that_does_not_exist_ends_the_worker() -> None:
    topology = Topology("t")
    topology.stream("in").to(lambda key, value: "nowhere")
    run = Run(topology)
    run.send(b"a")
    with pytest.raises(ProcessingError, match="UNKNOWN_TOPIC"):
        run.ticks(10)


@pytest.mark.parametrize("ahead_ms", [3_599_000, 3_700_000])
def test_a_time_too_far_ahead_fails_its_record_not_its_transaction(ahead_ms: int) -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, timestamp=lambda k, v: int(v), on_error="continue")
    stream.to("out")
    run = Run(topology)
    run.send(b"1", b"%d" % (START_MS + ahead_ms), b"2")
    run.ticks()
    expected = 3 if ahead_ms < 3_600_000 else 2
    assert len(run.out()) == expected
    assert run.worker.status().rollbacks == 0


def test_the_limit_moves_with_time() -> None:
    topology = Topology("t")
    topology.stream("in", value=TEXT, timestamp=lambda k, v: int(v), on_error="continue").to("out")
    run = Run(topology)
    run.ticks()
    run.ticks(1, step_ms=40_000_000)
    run.send(b"%d" % (START_MS + 43_000_000))
    run.ticks()
    assert len(run.out()) == 1


def test_a_topics_limits_that_cannot_be_read_cost_no_record() -> None:
    """A dynamic sink asks for a topic's limits in the middle of a batch."""
    topology = Topology("t")

    class Choose(Processor[str, str, str, str]):
        def process(self, key: str, value: str) -> None:
            self.context.forward(key, value)

    stream = topology.stream("in", key=TEXT, value=TEXT, on_error="continue").process(Choose)
    stream.to(lambda key, value: f"out-{value[0]}", key=TEXT, value=TEXT)
    run = Run(topology, {"in": 1, "out-a": 1, "out-b": 1})
    down = [True]
    run.broker.on_call = raising("admin.config", error=Unavailable, only=lambda: down[0])
    run.ticks()
    run.send(b"a1", b"b1", b"a2")
    run.ticks(6)
    assert run.out("out-a") == []
    down[0] = False
    run.ticks(6)
    assert run.out("out-a") == [(b"k", b"a1"), (b"k", b"a2")]
    assert run.out("out-b") == [(b"k", b"b1")]
    assert run.worker.status().failed == 0
