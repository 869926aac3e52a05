"""Kafka on kafka-python: the client that needs no compiled library, about ten times slower."""

from rillcast.transports.kafka.kafka_python.sink import KafkaPythonSink
from rillcast.transports.kafka.kafka_python.source import KafkaPythonSource
from rillcast.transports.kafka.kafka_python.transactions import KafkaPythonTransactions

__all__ = ["KafkaPythonSink", "KafkaPythonSource", "KafkaPythonTransactions"]
