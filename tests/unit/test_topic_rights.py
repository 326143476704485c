"""Rights that the broker does not list end the start, also those that only a restore would need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from streamstate import Topology, serde
from streamstate.engine.assign.topics import prepare_topics
from streamstate.engine.ports import NewTopic, NotAuthorized, TopicInfo
from streamstate.graph.node import Graph
from streamstate.testing.memory_broker.adapters import ManualClock, MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker


class Guarded(MemoryAdmin):
    """Lists what is allowed, like a broker with an authorizer."""

    lacking: tuple[str, str] = ("", "")
    unseen = ""

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        wanted = list(names)
        if self.unseen in wanted:
            raise NotAuthorized.lacking("describing it", "topic", self.unseen, "Describe")
        everything = frozenset(("Read", "Write"))
        return {
            name: replace(info, allowed=everything - {self.lacking[1]} if name == self.lacking[0] else everything)
            for name, info in super().topics(wanted).items()
        }


def counting() -> Graph:
    topology = Topology("app")
    lines = topology.stream("in", key=serde.string(), value=serde.string())
    lines.group_by(lambda key, value: value, key=serde.string()).count(store="words").to_stream().to("out")
    return topology.build()


@pytest.fixture
def admin() -> Guarded:
    found: Any = Guarded(MemoryBroker(ManualClock()))
    found.create([NewTopic("in", 1)])
    return found


@pytest.mark.parametrize("again", [False, True], ids=["first start", "later start"])
@pytest.mark.parametrize(
    "lacking",
    [
        ("in", "Read"),
        ("out", "Write"),
        ("app-words-repartition", "Read"),
        ("app-words-repartition", "Write"),
        ("app-words-changelog", "Read"),
        ("app-words-changelog", "Write"),
        ("app-metadata", "Read"),
        ("app-metadata", "Write"),
    ],
)
def test_a_right_that_is_not_listed_is_missing(admin: Guarded, lacking: tuple[str, str], again: bool) -> None:
    if again:
        prepare_topics(counting(), "app", admin)
    admin.lacking = lacking
    with pytest.raises(NotAuthorized, match=f"^{lacking[1]} on topic '{lacking[0]}' is denied"):
        prepare_topics(counting(), "app", admin)


@pytest.mark.parametrize(
    ("unseen", "right"), [("in", "Read"), ("out", "Write"), ("app-words-changelog", "Read"), ("app-metadata", "Read")]
)
def test_a_topic_that_is_not_seen_lacks_the_right_that_is_needed(admin: Guarded, unseen: str, right: str) -> None:
    admin.unseen = unseen
    with pytest.raises(NotAuthorized, match=f"^{right} on topic '{unseen}' is denied"):
        prepare_topics(counting(), "app", admin)


def test_other_rights_are_not_asked_for(admin: Guarded) -> None:
    admin.lacking = ("in", "Write")
    prepare_topics(counting(), "app", admin)
    admin.lacking = ("out", "Read")
    prepare_topics(counting(), "app", admin)
