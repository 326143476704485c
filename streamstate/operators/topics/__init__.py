"""Topics: sources, sinks, repartition topics and event times."""
