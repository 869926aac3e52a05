"""Kafka on kafka-python: the client that needs no compiled library, about ten times slower."""

from rillcast.transports.kafka.common.client import KafkaClient
from rillcast.transports.kafka.kafka_python.group import KafkaPythonGroup
from rillcast.transports.kafka.kafka_python.partition_reader import KafkaPythonPartitionReader
from rillcast.transports.kafka.kafka_python.sink import KafkaPythonSink
from rillcast.transports.kafka.kafka_python.source import KafkaPythonSource
from rillcast.transports.kafka.kafka_python.topic_admin import KafkaPythonTopicAdmin
from rillcast.transports.kafka.kafka_python.transactions import KafkaPythonTransactions

__all__ = ["CLIENT"]

CLIENT = KafkaClient(
    source=KafkaPythonSource,
    sink=KafkaPythonSink,
    transactions=KafkaPythonTransactions,
    group=KafkaPythonGroup,
    partition_reader=KafkaPythonPartitionReader,
    topic_admin=KafkaPythonTopicAdmin,
)
