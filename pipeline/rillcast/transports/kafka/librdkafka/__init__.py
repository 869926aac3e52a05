"""Kafka on librdkafka (the `confluent-kafka` package): the fast client.

Needs the extra `rillcast[librdkafka]`; import it through `rillcast.transports.connect`, which says so when it is
missing.
"""

from rillcast.transports.kafka.librdkafka.sink import LibrdkafkaSink
from rillcast.transports.kafka.librdkafka.source import LibrdkafkaSource
from rillcast.transports.kafka.librdkafka.transactions import LibrdkafkaTransactions

__all__ = ["LibrdkafkaSink", "LibrdkafkaSource", "LibrdkafkaTransactions"]
