"""A consumer group seen from outside, with librdkafka. See `rillcast.transports.kafka.common.groups.GroupView`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment
from rillcast.transports.kafka.common.retries import retry_until
from rillcast.transports.kafka.librdkafka.config import connection_config, consumer_config, create
from rillcast.transports.kafka.librdkafka.errors import TransientWarnings, may_pass, refused
from rillcast.transports.kafka.librdkafka.lookup import look_up


class LibrdkafkaGroup:
    """Asks about the settings' group and one topic; never joins."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        warn = TransientWarnings(settings.bootstrap_servers)
        self._admin = create(lambda: AdminClient(connection_config(settings, warn)), "kafka admin settings")
        # It asks for positions under the group's name, and never subscribes.
        self._consumer = create(lambda: Consumer(consumer_config(settings, warn)), "kafka consumer settings")

    def members(self) -> int:
        """Return the number of members of the group."""
        group = self._settings.group_id
        timeout_s = self._settings.request_timeout_s

        def ask() -> int:
            asked = self._admin.describe_consumer_groups([group], request_timeout=timeout_s)
            try:
                return len(asked[group].result().members)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return 0
                raise

        try:
            # A coordinator may be loading, or have moved.
            return retry_until(time.monotonic() + timeout_s, ask, may_pass)
        except KafkaException as error:
            raise refused(self._settings, self._topic, f"asking for the members of group {group}", error) from error

    def assignments(self, partitions: Sequence[int]) -> Sequence[Assignment]:
        """Return what the brokers say about `partitions`."""
        try:
            return look_up(self._consumer, self._settings, self._topic, partitions)
        except KafkaException as error:
            raise refused(self._settings, self._topic, "asking for the committed positions", error) from error

    def close(self) -> None:
        """Close the consumer; the admin client ends with its last reference."""
        self._consumer.close()
