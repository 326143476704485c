"""Real Apache Kafka on a local JVM: re-exports only."""

from streamstate.broker.embedded import EmbeddedBroker

__all__ = ["EmbeddedBroker"]
