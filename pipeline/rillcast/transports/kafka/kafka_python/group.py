"""A consumer group seen from outside, with kafka-python. See `rillcast.transports.kafka.common.groups.GroupView`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import GroupIdNotFoundError, KafkaError

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.retries import retry_until
from rillcast.transports.kafka.kafka_python.config import connection_config, consumer_config, create
from rillcast.transports.kafka.kafka_python.lookup import look_up


class KafkaPythonGroup:
    """Asks about the settings' group and one topic; never joins."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        config = consumer_config(settings) | {"group_instance_id": None}
        self._consumer = create(settings, "group reader", lambda: KafkaConsumer(**config))
        self._admin = create(settings, "admin client", lambda: KafkaAdminClient(**connection_config(settings)))

    def members(self) -> int:
        """Return the number of members of the group."""
        group = self._settings.group_id
        deadline = time.monotonic() + self._settings.request_timeout_s
        try:
            # A coordinator may be loading or have moved; a new cluster has none until somebody asks for it.
            described = retry_until(deadline, lambda: self._admin.describe_groups([group]), _is_retriable)
        except GroupIdNotFoundError:
            return 0
        except KafkaError as error:
            raise failures.refused(
                self._settings.bootstrap_servers, self._topic, f"asking for the members of group {group}", error
            ) from error
        return len(described[group]["members"])

    def assignments(self, partitions: Sequence[int]) -> Sequence[Assignment]:
        """Return what the brokers say about `partitions`."""
        try:
            return look_up(self._consumer, self._topic, partitions, self._settings.request_timeout_s)
        except KafkaError as error:
            raise failures.refused(
                self._settings.bootstrap_servers, self._topic, "asking for the committed positions", error
            ) from error

    def close(self) -> None:
        """Close both clients."""
        self._consumer.close(autocommit=False, timeout_ms=self._settings.request_timeout_s * 1_000)
        self._admin.close()


def _is_retriable(error: Exception) -> bool:
    return isinstance(error, KafkaError) and bool(error.retriable) and not isinstance(error, GroupIdNotFoundError)
