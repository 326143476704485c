"""Each refusal names the thing and the fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamstate import Processor, Topology, TopologyError, aggregates, dead_letter, serde, stores

STORE = stores.key_value("seen", key=serde.string(), value=serde.string())


def keyed(topology: Topology) -> Any:
    return topology.stream("in", key=serde.string(), value=serde.json())


def nothing_read(topology: Topology) -> None:
    topology.build()


def topic_read_twice(topology: Topology) -> None:
    topology.stream("in")
    topology.stream(["other", "in"])
    topology.build()


def source_named_twice(topology: Topology) -> None:
    topology.stream("in")
    topology.stream("in", name="again")


def name_of_a_source_taken(topology: Topology) -> None:
    topology.stream("in")
    topology.stream("other", name="in")


def names_given_twice(topology: Topology) -> None:
    keyed(topology).filter(max, name="same").peek(print, name="same")


def stores_named_twice(topology: Topology) -> None:
    grouped = keyed(topology).group_by_key()
    grouped.count(store="same")
    grouped.reduce(max, store="same")


def stores_that_differ(topology: Topology) -> None:
    stream = keyed(topology)
    stream.process(Processor, stores=[STORE])
    stream.process(Processor, stores=[stores.key_value("seen", key=serde.string(), value=serde.long())])


def store_added_twice(topology: Topology) -> None:
    topology.add_store(STORE)
    topology.add_store(STORE)


def store_of_a_processor_aggregated(topology: Topology) -> None:
    stream = keyed(topology)
    stream.process(Processor, stores=[STORE])
    stream.group_by_key().count(store="seen")


def store_unattached(topology: Topology) -> None:
    topology.stream("in")
    topology.add_store(STORE)
    topology.build()


def store_unknown(topology: Topology) -> None:
    topology.stream("in").process(Processor, stores=["unseen"])
    topology.build()


def dead_letters_read(topology: Topology) -> None:
    topology.stream("in", on_error=dead_letter("other")).merge(topology.stream("other"))
    topology.build()


def merged_across(topology: Topology) -> None:
    topology.stream("in").merge(Topology("elsewhere").stream("other"))


# What mypy refuses too is refused at run time as well, hence the untyped cases.
CASES: dict[Callable[[Any], Any], tuple[str, ...]] = {
    nothing_read: ("topology 't' reads nothing", "t.stream('topic')"),
    topic_read_twice: ("topic 'in' is read by two sources, of 'in' and of 'other' and 'in'", "merge()"),
    source_named_twice: ("topic 'in' is read twice, by 'in' and by 'again'", "Leave out name="),
    name_of_a_source_taken: ("two operators are named 'in'", "name="),
    names_given_twice: ("two operators are named 'same'", "name="),
    stores_named_twice: ("two stores are named 'same'", "store="),
    stores_that_differ: ("two stores are named 'seen' and differ", "share one StoreSpec"),
    store_added_twice: ("two stores are named 'seen'", "add it once"),
    store_of_a_processor_aggregated: ("two stores are named 'seen'", "store="),
    store_unattached: ("the store 'seen' is not attached", "process(..., stores=['seen'])"),
    store_unknown: ("'in.process' uses the store 'unseen', which does not exist", "topology.add_store("),
    dead_letters_read: ("'in' sends failed records to 'other'", "choose another dead-letter topic"),
    merged_across: ("merge of a stream of topology 't'", "'elsewhere'", "one Topology object"),
    lambda t: t.stream([]): ("topology 't' got no topics", "at least one"),
    lambda t: t.stream(["a", "a"]): ("names a topic twice: a, a",),
    lambda t: t.stream("a", reset="never"): ("reset=", "'earliest', 'latest' or 'error'", "'never'"),
    lambda t: t.stream("a", on_error="retry"): ("on_error=", "dead_letter('topic')", "'retry'"),
    lambda t: t.stream("a", on_error=dead_letter("b c")): ("dead-letter topic 'b c'", "letters, digits"),
    lambda t: t.stream("a", timestamp=5): ("timestamp=", "field name or a function", "5"),
    lambda t: keyed(t).merge(): ("merge after 'in'", "at least one other"),
    lambda t: (lambda s: s.merge(s))(keyed(t)): ("merge after 'in' got the same stream twice",),
    lambda t: keyed(t).split(): ("split after 'in'", "at least one predicate"),
    lambda t: keyed(t).split(True): ("split after 'in' takes a function of (key, value), not True",),
    lambda t: keyed(t).filter("x > 1"): ("filter after 'in' takes a function of (key, value), not 'x > 1'",),
    lambda t: keyed(t).group_by_key().reduce(None): (
        "reduce after 'in' takes a function of (aggregate, value), not None",
    ),
    lambda t: keyed(t).map_values(len).to("o"): ("to after 'in.map_values'", "serde of the value", "value= to to"),
    lambda t: keyed(t).select_key(max).to("o"): ("to after 'in.select_key'", "serde of the key", "key= to to"),
    lambda t: keyed(t).process(Processor).to("o"): ("to after 'in.process' needs the serde of the key",),
    lambda t: keyed(t).map(max).repartition(): ("repartition after 'in.map'", "serde of the key", "key="),
    lambda t: keyed(t).map_values(len).group_by(max, key=serde.string()): (
        "group_by after 'in.map_values'", "serde of the value", "value= to group_by",
    ),
    lambda t: keyed(t).select_key(max).group_by_key(): (
        "group_by_key after 'in.select_key'", "serde of the key", "key= to group_by_key",
    ),
    lambda t: keyed(t).map_values(len).group_by_key().reduce(max): (
        "reduce after 'in.map_values'", "serde of the value", "value= to reduce",
    ),
    lambda t: keyed(t).repartition(partitions=0): ("repartition after 'in'", "partitions=1 or more, not 0"),
    lambda t: keyed(t).group_by_key().aggregate(): ("aggregate after 'in'", "two functions and value=", "by name"),
    lambda t: keyed(t).group_by_key().aggregate(initializer=list, aggregator=max): (
        "aggregate after 'in'", "serde of the aggregate",
    ),
    lambda t: keyed(t).group_by_key().aggregate(initializer=0, aggregator=max, value=serde.long()): (
        "aggregate after 'in' takes as initializer a function without parameters, not 0",
    ),
    lambda t: keyed(t).group_by_key().aggregate(initializer=list, aggregator=max, n=aggregates.count()): (
        "either two functions",
    ),
    lambda t: keyed(t).group_by_key().aggregate(n=len): ("got n=", "n=aggregates.count()"),
    lambda t: keyed(t).group_by_key().count(store="s").to_stream(emit="close"): (
        "to_stream after 's.count'", "emit='update', 'change' or 'commit'", "'close'",
    ),
    lambda t: keyed(t).process(Processor()): ("process after 'in'", "a new Processor for each task"),
    lambda t: keyed(t).process(dict): ("process after 'in'", "Processor subclass", "dict"),
    lambda t: keyed(t).process(Processor, stores="seen"): ("process after 'in' takes a list", "stores=['seen']"),
    lambda t: keyed(t).process(Processor, on_error="stop"): ("on_error=", "'stop'"),
}  # fmt: skip


@pytest.mark.parametrize(("mistake", "parts"), CASES.items(), ids=lambda case: getattr(case, "__name__", None))
def test_a_mistake_is_refused_with_its_name_and_its_fix(
    mistake: Callable[[Topology], Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(TopologyError) as caught:
        mistake(Topology("t"))
    for part in parts:
        assert part in str(caught.value)


def test_what_is_unusual_but_sound_is_allowed() -> None:
    topology = Topology("t")
    stream = topology.stream("in")
    stream.filter(max)  # nobody listens
    stream.to("in")  # a loop through Kafka is the user's business
    assert len(topology.build().subtopologies) == 1
