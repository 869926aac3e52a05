"""Topics, with librdkafka. See `rillcast.transports.kafka.common.topic_admin.TopicAdmin`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it re-exports
    AdminClient,
    ConfigResource,
    ResourceType,
    TopicMetadata,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic

from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.retries import wait_until
from rillcast.transports.kafka.librdkafka.config import connection_config, create
from rillcast.transports.kafka.librdkafka.errors import TransientWarnings, refused


class LibrdkafkaTopicAdmin:
    """Asks with an admin client."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        warn = TransientWarnings(settings.bootstrap_servers)
        self._admin = create(lambda: AdminClient(connection_config(settings, warn)), "kafka admin settings")

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions; None = there is no such topic."""
        topics = self._listed()
        return len(topics[topic].partitions) if topic in topics else None

    def lacking(self, topics: Collection[str]) -> Collection[str]:
        """Return those topics of which a partition has no leader, or a copy that is not in step with it."""
        found = self._listed()
        return [
            topic
            for topic in topics
            if topic in found
            and any(each.leader < 0 or len(each.isrs) < len(each.replicas) for each in found[topic].partitions.values())
        ]

    def _listed(self) -> Mapping[str, TopicMetadata]:
        try:
            topics: Mapping[str, TopicMetadata] = self._admin.list_topics(
                timeout=self._settings.request_timeout_s
            ).topics
        except KafkaException as error:
            raise failures.unreachable(
                self._settings.bootstrap_servers, self._settings.request_timeout_s, error.args[0]
            ) from error
        return topics

    def config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's configuration."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        future = self._admin.describe_configs([resource], request_timeout=self._settings.request_timeout_s)[resource]
        try:
            return {name: entry.value for name, entry in future.result().items()}
        except KafkaException as error:
            raise refused(self._settings, topic, "describing its configuration", error) from error

    def operations(self, topic: str) -> frozenset[str] | None:
        """Return what this client may do with the topic; None = the brokers do not say."""
        timeout_s = self._settings.request_timeout_s
        asked = TopicCollection([topic])
        found = self._admin.describe_topics(asked, include_authorized_operations=True, request_timeout=timeout_s)
        with contextlib.suppress(KafkaException):
            if (operations := found[topic].result().authorized_operations) is not None:
                return frozenset(operation.name for operation in operations)
        return None

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create the topic and wait until it is listed."""
        new = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=dict(config))
        timeout_s = self._settings.request_timeout_s
        future = self._admin.create_topics([new], operation_timeout=timeout_s, request_timeout=timeout_s)[topic]
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # otherwise another member was quicker
                raise refused(self._settings, topic, "creating it", error) from error

        self._wait_for(topic, 1)

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions and wait until they are listed."""
        if (self.partitions(topic) or 0) >= partitions:
            return
        timeout_s = self._settings.request_timeout_s
        new = [NewPartitions(topic, partitions)]
        future = self._admin.create_partitions(new, operation_timeout=timeout_s, request_timeout=timeout_s)[topic]
        try:
            future.result()
        except KafkaException as error:
            if (self.partitions(topic) or 0) < partitions:  # otherwise another member was quicker
                raise refused(self._settings, topic, "adding partitions", error) from error
        self._wait_for(topic, partitions)

    def _wait_for(self, topic: str, partitions: int) -> None:
        deadline = time.monotonic() + self._settings.request_timeout_s
        if not wait_until(deadline, lambda: (self.partitions(topic) or 0) >= partitions):
            raise failures.missing_topics(self._settings.bootstrap_servers, [topic])

    def close(self) -> None:
        """Do nothing: the client ends with its last reference."""
