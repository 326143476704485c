"""Which are the ten busiest routes from each of New York's airports?

In: the topic ``flights``, as ``streamstate feed`` fills it.
Out: ``busiest-routes``, per airport the ten destinations with the most flights, each with their number; with equal
numbers in the order of the alphabet. At each commit, the newest ranking of the airports where it may have changed.

A table counts the flights of each route. Grouped by airport, each of its changes takes the route's old number out of
the airport's ranking and puts the new one in.

Run it with:
    streamstate feed flights
    streamstate run topologies/route_ranking.py
"""

from typing import Any

from streamstate import Topology, serde

Ranking = dict[str, int]

topology = Topology("route-ranking")


def put(origin: str, route: Any, ranking: Ranking) -> Ranking:
    """The ranking with a route."""
    return {**ranking, route["dest"]: route["flights"]}


def take_out(origin: str, route: Any, ranking: Ranking) -> Ranking:
    """The ranking without it."""
    return {dest: flights for dest, flights in ranking.items() if dest != route["dest"]}


def top_ten(ranking: Ranking) -> list[tuple[str, int]]:
    """The destinations with the most flights."""
    return sorted(ranking.items(), key=lambda item: (-item[1], item[0]))[:10]


routes = (
    topology.stream("flights", key=serde.string(), value=serde.json(), timestamp="scheduled_ms")
    .group_by(lambda key, flight: f"{flight['origin']}-{flight['dest']}", key=serde.string())
    .count(store="routes")
)
rankings = routes.group_by(
    lambda route, flights: route[:3],
    key=serde.string(),
    select=lambda route, flights: {"dest": route[4:], "flights": flights},
    value=serde.json(),
).aggregate(initializer=dict[str, int], adder=put, subtractor=take_out, store="rankings", value=serde.json())

rankings.to_stream(emit="commit").map_values(top_ten).to("busiest-routes", value=serde.json())
