"""Which aircraft flew each flight number last, and what do we know of it?

In: ``flights``, whose newest record per flight number is a table here, and ``planes``; as ``streamstate feed`` fills
them.
Out: ``latest-flights``, per flight number its newest flight with its aircraft, or null for one that is not in the
register; anew whenever either changes.

The tables have different keys. The join is by foreign key: a flight's tail number is the key of its aircraft.

Run it with:
    streamstate feed planes flights
    streamstate run topologies/latest_flights.py
"""

from typing import Any

from streamstate import Topology, serde

topology = Topology("latest-flights")
flights = topology.table("flights", key=serde.string(), value=serde.json(), timestamp="scheduled_ms")
planes = topology.table("planes", key=serde.string(), value=serde.json())


def together(flight: Any, plane: Any) -> Any:
    """What is sent of a flight and its aircraft."""
    return {
        "scheduled_ms": flight["scheduled_ms"],
        "dest": flight["dest"],
        "tailnum": flight["tailnum"],
        "plane": plane and {name: plane[name] for name in ("manufacturer", "model", "year")},
    }


latest = flights.left_join(
    planes,
    together,
    foreign_key=lambda number, flight: flight["tailnum"],
    value=serde.json(),
    name="flown-by",
)
latest.to_stream().to("latest-flights")
