"""When was each aircraft at work, how often did it leave New York meanwhile, and how far did it go?

In: the topic ``flights``, as ``streamstate feed`` fills it.
Out: ``aircraft-sessions``, one record per aircraft and session, once the session is over: no departure for 12 hours,
and a day for flights that come late. The key is the tail number with the first and the last departure.

Run it with:
    streamstate feed flights
    streamstate run topologies/aircraft_sessions.py
"""

from datetime import timedelta

from streamstate import Topology, aggregates, serde, windows

topology = Topology("aircraft-sessions")

sessions = (
    topology.stream("flights", key=serde.string(), value=serde.json(), timestamp="scheduled_ms")
    # A cancelled flight has often no aircraft yet.
    .filter(lambda key, flight: flight["tailnum"] is not None)
    .group_by(lambda key, flight: flight["tailnum"], key=serde.string())
    .windowed_by(windows.session(timedelta(hours=12), grace=timedelta(days=1)))
    .aggregate(
        flights=aggregates.count(),
        miles=aggregates.sum("distance"),
        worst_delay=aggregates.max("dep_delay"),
        store="sessions",
        emit="close",
    )
)
sessions.to_stream().to("aircraft-sessions", value=serde.json())
