"""An input that gets more partitions while it is read: taken where nothing depends on their number, else refused."""

from __future__ import annotations

import pytest

from streamstate import Topology, TopologyError, serde
from streamstate.engine.ports import TopicPartition
from tests.unit.application_support import Run

TEXT = serde.string()
NUMBER = serde.long()


def grown(topology: Topology, protocol_settings: dict[str, object] | None = None) -> Run:
    run = Run(topology, {"in": 2, "out": 1}, **(protocol_settings or {}))
    run.send((b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    run.ticks(6)
    assert len(run.out()) == 3
    run.broker.add_partitions("in", 4)
    return run


def test_more_partitions_without_state_are_read() -> None:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).to("out")
    run = grown(topology)
    for partition in range(4):
        run.send(b"x%d" % partition, partition=partition)
    run.until(lambda: len(run.out()) == 7)
    assert {run.offset(partition=partition) for partition in (2, 3)} == {1}


@pytest.mark.parametrize("grouping", ["the input's own keys", "new keys"])
def test_more_partitions_under_state_are_refused_while_it_runs(grouping: str) -> None:
    """The keys' partitions have changed already: where their counts are, they are not read any more."""
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    grouped = stream.group_by_key() if grouping == "the input's own keys" else stream.group_by(lambda k, v: v, key=TEXT)
    grouped.count(store="counts").to_stream().to("out", value=NUMBER)
    run = grown(topology)
    run.send(b"x", partition=3)
    with pytest.raises(TopologyError, match=r"(?s)went from 2 to 4 under existing state.*streamstate reset"):
        run.ticks(20)
    run.workers.pop("w").close(commit=False)
    assert len(run.out()) == 3
    assert TopicPartition("in", 3) not in run.broker.committed("app")
