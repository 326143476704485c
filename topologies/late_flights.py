"""How many flights leave per hour, and which records came too late to be counted?

In: the topic ``flights``, best in disorder.
Out: ``flights-per-hour``, the number of flights of each airport and hour, once, a day after the hour is over; and
``late-flights``, what came after that, as it was, with by how much it was late in the header ``streamstate.late_ms``.
So every flight is either counted or in ``late-flights``.

Run it with:
    streamstate feed flights --shuffle 1
    streamstate run topologies/late_flights.py
"""

from datetime import timedelta

from streamstate import Topology, serde, windows

topology = Topology("late-flights")

per_hour = (
    topology.stream("flights", key=serde.string(), value=serde.json(), timestamp="scheduled_ms")
    .group_by(lambda key, flight: flight["origin"], key=serde.string())
    .windowed_by(windows.tumbling(timedelta(hours=1), grace=timedelta(days=1)))
    .late_to("late-flights")
    .count(store="per-hour", emit="close")
)
per_hour.to_stream().to("flights-per-hour")
