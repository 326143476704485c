"""Departure delays, always up to date: how many flights, the mean and the longest delay, by carrier and by origin.

In: the topic ``flights``, JSON objects such as
{"carrier": "UA", "origin": "EWR", "scheduled_ms": 1357035300000, "dep_delay": 2}; a cancelled flight has
the delay null: it counts as a flight, and is in neither the mean nor the maximum.
Out: ``delays-by-carrier`` and ``delays-by-origin``, one record per flight in each, such as
{"flights": 1, "mean_delay": 2.0, "max_delay": 2}.

Run it with: streamstate run topologies/flight_delays.py --bootstrap-servers localhost:9092
Break it in memory: streamstate simulate --topology topologies/flight_delays.py
See it run with two processes, one of which is killed: streamstate demo
"""

from random import Random
from typing import Any

from streamstate import GroupedStream, Table, Topology, aggregates, serde

topology = Topology("flight-delays")

flights = topology.stream("flights", key=serde.string(), value=serde.json(), timestamp="scheduled_ms")


def delays(grouped: GroupedStream[str, Any], store: str) -> Table[str, dict[str, Any]]:
    """The running numbers of each group of flights."""
    return grouped.aggregate(
        flights=aggregates.count(),
        mean_delay=aggregates.mean("dep_delay"),
        max_delay=aggregates.max("dep_delay"),
        store=store,
    )


by_carrier = flights.group_by(lambda key, flight: flight["carrier"], key=serde.string())
delays(by_carrier, "by-carrier").to_stream().to("delays-by-carrier", value=serde.json())

by_origin = flights.group_by(lambda key, flight: flight["origin"], key=serde.string())
delays(by_origin, "by-origin").to_stream().to("delays-by-origin", value=serde.json())


def simulation_input(topic: str, random: Random) -> tuple[str, Any]:
    """A flight for ``streamstate simulate``: its key and value."""
    carrier, delay = random.choice(("AA", "DL", "UA")), random.choice((None, -3, 0, 12, 45))
    scheduled_ms = 1_357_035_300_000 + random.randrange(86_400_000)
    origin = random.choice(("EWR", "JFK", "LGA"))
    return carrier, {"carrier": carrier, "origin": origin, "scheduled_ms": scheduled_ms, "dep_delay": delay}
