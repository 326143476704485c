"""What the Kafka client says about the names of properties."""

from __future__ import annotations

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamstate.kafka.errors import kafka_error


def unknown_to_the_client(name: str) -> bool:
    """Whether no client has a property of this name. The client itself is asked; it makes no connection.

    >>> unknown_to_the_client("session.timeout.mz"), unknown_to_the_client("session.timeout.ms")
    (True, False)
    """
    try:
        # A value that most properties refuse: then the name exists, too.
        AdminClient({name: "\x01"})
    except KafkaException as error:
        return "No such configuration property" in kafka_error(error).str()
    return False
