"""A consumer group seen from outside, with librdkafka. See `rillcast.transports.kafka.common.groups.GroupView`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.librdkafka.config import connection_config, consumer_config, create
from rillcast.transports.kafka.librdkafka.errors import PERMANENT, TransientWarnings

T = TypeVar("T")

_RETRY_S: Final = 0.05


class LibrdkafkaGroup:
    """Asks for the settings' group and one topic; never joins."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        warn = TransientWarnings(settings.bootstrap_servers)
        self._admin = create(lambda: AdminClient(connection_config(settings, warn)), "kafka admin settings")
        # It asks for the group's positions under the group's name, and never subscribes.
        self._consumer = create(lambda: Consumer(consumer_config(settings, warn)), "kafka consumer settings")

    def members(self) -> int:
        """Return how many members the group has."""
        group = self._settings.group_id

        def ask() -> int:
            asked = self._admin.describe_consumer_groups([group], request_timeout=self._settings.request_timeout_s)
            try:
                return len(asked[group].result().members)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return 0
                raise

        return self._patiently(ask, f"asking for the members of group {group}")

    def assignments(self, partitions: Sequence[int]) -> Sequence[Assignment]:
        """Return what the brokers say of `partitions`."""
        asked = [TopicPartition(self._topic, number) for number in partitions]
        return self._patiently(lambda: self._look_up(asked), "asking for the committed positions") if asked else []

    def close(self) -> None:
        """Close the consumer; the admin client ends with its last reference."""
        self._consumer.close()

    def _look_up(self, asked: list[TopicPartition]) -> list[Assignment]:
        timeout_s = self._settings.request_timeout_s
        found = []
        for each in self._consumer.committed(asked, timeout=timeout_s):
            if each.error is not None:
                raise KafkaException(each.error)
            bounds = self._consumer.get_watermark_offsets(each, timeout=timeout_s)
            if bounds is None:
                raise failures.unreachable(self._settings.bootstrap_servers, timeout_s, "offsets of a partition")
            found.append(Assignment(each.partition, each.offset if each.offset >= 0 else None, *bounds))
        return found

    def _patiently(self, ask: Callable[[], T], doing: str) -> T:
        """Ask until there is an answer: a coordinator may be loading, or have moved."""
        deadline = time.monotonic() + self._settings.request_timeout_s
        while True:
            try:
                return ask()
            except KafkaException as error:
                # The client says of almost none of its errors whether it is worth another try.
                if error.args[0].code() in PERMANENT or time.monotonic() > deadline:
                    raise failures.refused(
                        self._settings.bootstrap_servers, self._topic, doing, error.args[0]
                    ) from error
            time.sleep(_RETRY_S)
