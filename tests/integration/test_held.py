"""Records that are held back, on a real broker: a kill with calls and batches under way loses and doubles nothing."""

from __future__ import annotations

import pytest

from tests.broker_support import eventually
from tests.integration.support import DEADLINE, Application, check_counts

pytestmark = pytest.mark.broker


def test_a_kill_while_records_are_held(application: Application) -> None:
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=60), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    feeder.start(300)
    for crash in range(2):
        worker = application.start("held_word_count", arguments, commit_interval=0.4)
        reader.until(300 * (crash + 1))
        worker.wait(lambda s: s["processed"] > s["committed"], "uncommitted work")
        worker.kill()
    last = application.start("held_word_count", arguments, commit_interval=0.4)
    feeder.stop()
    eventually(lambda: reader.poll() >= 0 and len(reader.records) >= feeder.words.total(), DEADLINE, "all counts")
    last.stop()
    check_counts(reader.drain(), feeder.truth())
