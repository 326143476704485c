"""In what weather did a flight leave, with what aircraft, of which airline?

In: ``flights``, ``weather``, ``planes`` and ``airlines``, as ``streamstate feed`` fills them.
Out: ``enriched-flights``, each flight with the weather of its airport in the hour of its departure, its aircraft's
model and seats, and the airline's name; with null where that is not known.

The weather and the aircraft are tables that the flights meet where their keys are: by way of two repartition topics.
The airlines are few, so every process has them all: a global table, which takes no detour.

Run it with:
    streamstate feed
    streamstate run topologies/enriched_flights.py
"""

from typing import Any

from streamstate import Topology, serde

HOUR_MS = 3_600_000
TEXT, JSON = serde.string(), serde.json()

topology = Topology("enriched-flights")
flights = topology.stream("flights", key=TEXT, value=JSON, timestamp="scheduled_ms")
weather = topology.table("weather", key=TEXT, value=JSON)
planes = topology.table("planes", key=TEXT, value=JSON)
airlines = topology.global_table("airlines", key=TEXT, value=TEXT)


def hour(key: str, flight: Any) -> str:
    """The key of the weather, such as EWR@1357034400000."""
    return f"{flight['origin']}@{flight['scheduled_ms'] // HOUR_MS * HOUR_MS}"


def with_weather(flight: Any, report: Any) -> Any:
    """The flight in its weather."""
    report = report or {}
    return {**flight, "temp": report.get("temp"), "wind_speed": report.get("wind_speed"), "visib": report.get("visib")}


def with_plane(flight: Any, plane: Any) -> Any:
    """The flight and its aircraft."""
    plane = plane or {}
    return {**flight, "model": plane.get("model"), "seats": plane.get("seats")}


(
    flights.select_key(hour)
    .left_join(weather, with_weather, key=TEXT, name="in-weather")
    .select_key(lambda key, flight: flight["tailnum"])
    .left_join(planes, with_plane, key=TEXT, value=JSON, name="by-plane")
    .left_join(airlines, lambda flight, name: {**flight, "airline": name}, on=lambda tail, flight: flight["carrier"])
    .to("enriched-flights", key=TEXT, value=JSON)
)
