"""Topics, with kafka-python. See `rillcast.transports.kafka.common.topic_admin.TopicAdmin`."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.retries import wait_until
from rillcast.transports.kafka.kafka_python.config import connection_config, create
from rillcast.transports.kafka.kafka_python.errors import as_transport_errors


class KafkaPythonTopicAdmin:
    """Asks with an admin client, which connects at once."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = create(settings, "admin client", lambda: KafkaAdminClient(**connection_config(settings)))

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions; None = there is no such topic."""
        with as_transport_errors(self._settings, topic, "listing topics"):
            # All topics: asking by name may create one.
            found = {each["name"]: len(each["partitions"]) for each in self._admin.describe_topics()}
        return found.get(topic)

    def lacking(self, topics: Collection[str]) -> Collection[str]:
        """Return those topics of which a partition has no leader, or a copy that is not in step with it."""
        with as_transport_errors(self._settings, ", ".join(topics), "listing topics"):
            found = {each["name"]: each["partitions"] for each in self._admin.describe_topics()}
        return [
            topic
            for topic in topics
            if any(
                each["leader_id"] < 0 or len(each["isr_nodes"]) < len(each["replica_nodes"])
                for each in found.get(topic, ())
            )
        ]

    def config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's configuration."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        with as_transport_errors(self._settings, topic, "describing its configuration"):
            described = self._admin.describe_configs([resource], config_filter="all")
        return {name: entry["value"] for name, entry in described["topic"][topic].items()}

    def operations(self, topic: str) -> frozenset[str] | None:
        """Return what this client may do with the topic; None = the brokers do not say."""
        with as_transport_errors(self._settings, topic, "listing topics"):
            found = {each["name"]: each for each in self._admin.describe_topics()}
        operations = found.get(topic, {}).get("authorized_operations")
        return None if operations is None else frozenset(operations)

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create the topic and wait until it is listed."""
        options = {"num_partitions": partitions, "replication_factor": -1, "configs": dict(config)}
        with as_transport_errors(self._settings, topic, "creating it"):
            try:
                self._admin.create_topics({topic: options}, wait_for_metadata=True)
            except TopicAlreadyExistsError:  # another member was quicker
                self._admin.wait_for_topics([topic])

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions and wait until they are listed."""
        if (self.partitions(topic) or 0) >= partitions:
            return
        try:
            with as_transport_errors(self._settings, topic, "adding partitions"):
                self._admin.create_partitions({topic: partitions})
        except TransportError:
            if (self.partitions(topic) or 0) < partitions:  # otherwise another member was quicker
                raise
        deadline = time.monotonic() + self._settings.request_timeout_s
        if not wait_until(deadline, lambda: (self.partitions(topic) or 0) >= partitions):
            raise failures.missing_topics(self._settings.bootstrap_servers, [topic])

    def close(self) -> None:
        """Close the client."""
        self._admin.close()
