"""Tables on a real broker: rows restored from their own topic, global tables, foreign keys, over a kill."""

from __future__ import annotations

import pytest

from streamstate.partitioning import partition_for
from tests.broker_support import eventually
from tests.integration.support import DEADLINE, Application

pytestmark = pytest.mark.broker

COMPACTED = {"cleanup.policy": "compact"}
KEPT = {"retention.ms": "-1", "retention.bytes": "-1"}


def test_rows_are_restored_from_their_topic_and_joined(application: Application) -> None:
    planes = application.create("planes", 3, KEPT)
    models = application.create("models", 2)
    airlines = application.create("airlines", 2, COMPACTED)
    flights = application.create("flights", 3)
    named, described = application.create("named", 2), application.create("described", 2)
    arguments = {
        "planes": planes, "models": models, "airlines": airlines, "flights": flights, "named": named,
        "described": described,
    }  # fmt: skip

    def send(topic: str, *records: tuple[str, str | None]) -> None:
        # Where Kafka's Java client puts them, which is where the foreign key looks.
        for key, value in records:
            partition = partition_for(key.encode(), application.cluster.partitions(topic))
            encoded = None if value is None else value.encode()
            application.cluster.send(topic, [(key.encode(), encoded)], partition=partition)

    send(airlines, ("UA", "United"), ("DL", "Delta"))
    send(planes, ("N1", "A320"), ("N2", "B737"), ("N3", "A320"), ("N4", "C172"))
    send(planes, ("N4", None))
    first = application.start("fleet", arguments)
    reader, pairs = application.reader(named), application.reader(described)

    def newest() -> dict[str, str]:
        pairs.poll()
        return {(r.key or b"").decode(): (r.value or b"-").decode() for r in pairs.records}

    rows = {"N1": "A320: None", "N2": "B737: None", "N3": "A320: None"}
    eventually(lambda: {k: v for k, v in newest().items() if v != "-"} == rows, DEADLINE, "planes without models")
    send(models, ("A320", "narrow"), ("B737", "narrow too"))
    rows = {"N1": "A320: narrow", "N2": "B737: narrow too", "N3": "A320: narrow"}
    eventually(lambda: {k: v for k, v in newest().items() if v != "-"} == rows, DEADLINE, "planes with models")
    send(flights, ("N1", "UA1"), ("N4", "DL2"), ("N2", "XX3"))
    reader.until(3)
    assert application.cluster.partitions(application.internal("planes-changelog")) == 0
    # The topic of models may lose rows, so they have a changelog.
    assert application.cluster.partitions(application.internal("models-changelog")) == 2
    first.kill()

    send(airlines, ("XX", "Xylo"))
    second = application.start("fleet", arguments, state="empty")
    send(flights, ("N1", "XX4"), ("N3", "UA5"), ("N9", "DL6"))
    reader.until(6)
    send(models, ("A320", "new"))
    rows |= {"N1": "A320: new", "N3": "A320: new"}
    eventually(lambda: {k: v for k, v in newest().items() if v != "-"} == rows, DEADLINE, "the new model")
    status = second.stop()
    # Of the planes at least, however compacted.
    assert status["restored"] >= 3
    found = sorted((record.value or b"").decode() for record in reader.drain())
    assert found == sorted(
        ["UA1 A320 United", "DL2 None Delta", "XX3 B737 None", "XX4 A320 Xylo", "UA5 A320 United", "DL6 None Delta"]
    )
