"""Kafka on librdkafka (the `confluent-kafka` package): the fast client.

Needs the extra `rillcast[librdkafka]`; import it through `rillcast.transports.connect`, which says so when it is
missing.
"""

from rillcast.transports.kafka.common.client import KafkaClient
from rillcast.transports.kafka.librdkafka.group import LibrdkafkaGroup
from rillcast.transports.kafka.librdkafka.parallel_sink import LibrdkafkaParallelSink
from rillcast.transports.kafka.librdkafka.partition_reader import LibrdkafkaPartitionReader
from rillcast.transports.kafka.librdkafka.source import LibrdkafkaSource
from rillcast.transports.kafka.librdkafka.topic_admin import LibrdkafkaTopicAdmin
from rillcast.transports.kafka.librdkafka.transactions import LibrdkafkaTransactions

__all__ = ["CLIENT"]

CLIENT = KafkaClient(
    source=LibrdkafkaSource,
    sink=LibrdkafkaParallelSink,
    transactions=LibrdkafkaTransactions,
    group=LibrdkafkaGroup,
    partition_reader=LibrdkafkaPartitionReader,
    topic_admin=LibrdkafkaTopicAdmin,
)
