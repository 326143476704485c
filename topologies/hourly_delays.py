"""How many flights were to leave each of New York's airports in an hour, and how late did they leave?

In: the topic ``flights``, as ``streamstate feed`` fills it.
Out: ``hourly-delays``, one record per airport and hour, once, when nothing can change it any more; and
``recent-delays``, the last three hours, anew for each hour and whenever it changes. A cancelled flight counts as a
flight, and is in neither the mean nor the maximum.

A delayed flight comes hours after its time. Windows therefore take records for a day after their end, and the hours
of the last day stay open until there are flights of the next.

Run it with:
    streamstate feed flights
    streamstate run topologies/hourly_delays.py
"""

from datetime import timedelta
from typing import Any

from streamstate import Table, Topology, WindowedStream, aggregates, serde, windows

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

topology = Topology("hourly-delays")

by_origin = (
    topology.stream("flights", key=serde.string(), value=serde.json(), timestamp="scheduled_ms")
    .map(lambda key, flight: (flight["origin"], {"dep_delay": flight["dep_delay"]}))
    .repartition(name="by-origin", key=serde.string(), value=serde.json())
    .group_by_key()
)


def delays(windowed: WindowedStream[str, Any], store: str, emit: Any) -> Table[Any, dict[str, Any]]:
    """The numbers of each airport and window."""
    return windowed.aggregate(
        flights=aggregates.count(),
        mean_delay=aggregates.mean("dep_delay"),
        max_delay=aggregates.max("dep_delay"),
        store=store,
        emit=emit,
    )


hourly = delays(by_origin.windowed_by(windows.tumbling(HOUR, grace=DAY)), "hourly", "close")
hourly.to_stream().to("hourly-delays", value=serde.json())

recent = delays(by_origin.windowed_by(windows.hopping(3 * HOUR, HOUR, grace=DAY)), "recent", "commit")
recent.to_stream().to("recent-delays", value=serde.json())
