"""What goes on under another topology, in rolling updates too."""

from __future__ import annotations

import json
import logging

import pytest

from streamstate import aggregates
from streamstate.engine.assign.metadata_topic import topology_mark
from streamstate.engine.settings import WorkerSettings
from streamstate.errors import TopologyError
from streamstate.testing.memory_broker.application import MemoryApplication
from tests.unit.application_support import GROUP, Run
from tests.unit.store_marks.support import (
    deploy,
    deploy_beside,
    folding,
    mark_in_changelog_newest,
    marks_in_metadata,
    out,
)

# -- what goes on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False])
def test_aggregates_that_stay_keep_their_state(local: bool, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(folding(n=aggregates.count(), total=aggregates.sum("x")))
    run.send(b'{"x":5}', b'{"x":7}')
    run.ticks()
    with caplog.at_level(logging.WARNING):
        deploy(run, folding(a_new=aggregates.max("x"), n=aggregates.count()), local=local)
    assert "ready aggregates a_new are new" in caplog.text
    assert "ready aggregates total are gone" in caplog.text
    run.send(b'{"x":3}')
    run.ticks()
    assert json.loads(out(run)[-1]) == {"a_new": 3, "n": 3}
    # What is back starts anew, and what stayed is still there; also for a key that saw nothing of it all.
    run.send(b'{"x":1}', key=b"other")
    deploy(run, folding(n=aggregates.count(), total=aggregates.sum("x")), local=local)
    run.send(b'{"x":10}')
    run.ticks(8)
    assert json.loads(out(run)[-1]) == {"n": 4, "total": 10}
    assert len(mark_in_changelog_newest(run, "a").aggregates) == 3


def test_a_field_is_not_taken_for_another() -> None:
    run = Run(folding(total=aggregates.sum("x")))
    run.send(b'{"x":5}')
    run.ticks()
    with pytest.raises(TopologyError, match=r"aggregate 'total' was sum\(of='x'\), the topology says sum\(of='y'\)"):
        deploy(run, folding(total=aggregates.sum("y")))
    deploy(run, folding(total=aggregates.sum(lambda value: value["x"])))


def test_an_old_process_ends_when_a_newer_one_has_changed_its_store() -> None:
    run = Run(folding(n=aggregates.count()), {"in": 2})
    run.send(b'{"x":1}', partition=0)
    run.ticks(8)
    old = run.workers.pop("w")
    run.app = MemoryApplication(
        folding(n=aggregates.count(), m=aggregates.max("x")).build(), run.broker, run.clock, WorkerSettings(GROUP)
    )
    run.start("new")
    for _ in range(60):
        old.tick()
        run.ticks(1)
    run.send(b'{"x":4}', partition=0)
    run.send(b'{"x":4}', partition=1)
    for _ in range(60):
        old.tick()
        run.ticks(1)
    # The newer one leaves: its tasks go back, and are not taken.
    run.workers.pop("new").close()
    run.workers["old"] = old
    with pytest.raises(TopologyError, match="started later with another topology"):
        run.ticks(60)


def test_going_back_waits_for_the_newer_processes_to_stop() -> None:
    earlier, later = folding(n=aggregates.count()), folding(n=aggregates.count(), m=aggregates.max("x"))
    run = Run(earlier)
    run.send(b'{"x":1}')
    run.ticks()
    deploy(run, later)
    run.ticks(8)
    run.send(b'{"x":2}')
    run.ticks(8)
    with pytest.raises(
        TopologyError,
        match=r"ready aggregates m, n by now, and group 'app' has members that .* \(w\)",
    ):
        MemoryApplication(earlier.build(), run.broker, run.clock, WorkerSettings(GROUP))
    deploy(run, earlier)
    run.send(b'{"x":3}')
    run.ticks(8)
    assert json.loads(out(run)[-1]) == {"n": 3}


def test_all_processes_go_back() -> None:
    """Others of the same version are no reason to wait, before the tasks have committed and after."""
    earlier, later = folding(n=aggregates.count()), folding(n=aggregates.count(), m=aggregates.max("x"))
    run = Run(earlier, {"in": 2})
    run.send(b'{"x":1}', partition=0)
    run.ticks(8)
    deploy(run, later)
    run.send(b'{"x":2}', partition=0)
    run.ticks(8)
    mark = topology_mark(earlier.build())
    deploy(run, earlier)
    run.start(f"{GROUP}-1.{mark}").commits.begin = lambda *_: None  # type: ignore[method-assign]
    run.ticks(8)
    assert [len(text.aggregates) for text in marks_in_metadata(run, "a")] == [2, 2], "they have gone back already"
    deploy_beside(run, earlier, f"{GROUP}-2.{mark}")
    run.workers.pop(f"{GROUP}-1.{mark}").close(commit=False)
    run.send(b'{"x":3}', partition=0)
    run.ticks(20)
    assert [len(text.aggregates) for text in marks_in_metadata(run, "a")] == [3, 3]
    assert json.loads(out(run)[-1]) == {"n": 3}
    # Whatever the others are called: the state is that of this version by now.
    run.start("w")
    run.ticks(8)
    deploy_beside(run, earlier, f"{GROUP}-3.{mark}")
    with pytest.raises(TopologyError, match="may run with them"):
        deploy_beside(run, later, f"{GROUP}-4.{topology_mark(later.build())}")
