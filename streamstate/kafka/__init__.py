"""The engine's ports on confluent-kafka."""

from streamstate.kafka.admin import KafkaAdmin
from streamstate.kafka.background import ThreadBackground
from streamstate.kafka.consumer import KafkaConsumer, KafkaRestoreConsumer
from streamstate.kafka.producer import KafkaProducer

__all__ = ["KafkaAdmin", "KafkaConsumer", "KafkaProducer", "KafkaRestoreConsumer", "ThreadBackground"]
