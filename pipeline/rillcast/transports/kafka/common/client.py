"""The parts of a Kafka client library: one maker for each part that the rest of the program uses.

Owns: the list of parts. Does not know: either library. `rillcast.transports.connect` chooses one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Sink, Source
from rillcast.transports.kafka.common.groups import GroupView
from rillcast.transports.kafka.common.partition_reader import PartitionReader
from rillcast.transports.kafka.common.record_size import Limits
from rillcast.transports.kafka.common.topic_admin import TopicAdmin
from rillcast.transports.kafka.common.transactions import TransactionalProducer

Topics: TypeAlias = Mapping[Channel, str]


@dataclass(frozen=True, slots=True)
class KafkaClient:
    """The parts of one client library.

    Attributes:
        source: Makes a member of the group from settings and topic.
        sink: Makes a sink without transactions from settings, topics and their limits.
        transactions: Makes a transactional producer from settings, topics, their limits, source topic and
            transactional id.
        group: Makes a view of the group from settings and topic.
        partition_reader: Makes a reader from settings, topic, and the longest time in milliseconds that a broker may
            hold a fetch at the end of a partition.
        topic_admin: Makes an administrator of topics.
    """

    source: Callable[[KafkaSettings, str], Source]
    sink: Callable[[KafkaSettings, Topics, Limits], Sink]
    transactions: Callable[[KafkaSettings, Topics, Limits, str, str], TransactionalProducer]
    group: Callable[[KafkaSettings, str], GroupView]
    partition_reader: Callable[[KafkaSettings, str, int], PartitionReader]
    topic_admin: Callable[[KafkaSettings], TopicAdmin]
