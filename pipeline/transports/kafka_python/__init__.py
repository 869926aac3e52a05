"""Kafka on kafka-python: the client that needs no compiled library, about ten times slower."""

from pipeline.transports.kafka_python.sink import KafkaPythonSink
from pipeline.transports.kafka_python.source import KafkaPythonSource
from pipeline.transports.kafka_python.transactions import KafkaPythonTransactions

__all__ = ["KafkaPythonSink", "KafkaPythonSource", "KafkaPythonTransactions"]
