"""Kafka on librdkafka (the `confluent-kafka` package): the fast client.

Needs the extra `rillcast[librdkafka]`; import it through `pipeline.transports.connect`, which says so when it is
missing.
"""

from pipeline.transports.librdkafka.sink import LibrdkafkaSink
from pipeline.transports.librdkafka.source import LibrdkafkaSource
from pipeline.transports.librdkafka.transactions import LibrdkafkaTransactions

__all__ = ["LibrdkafkaSink", "LibrdkafkaSource", "LibrdkafkaTransactions"]
