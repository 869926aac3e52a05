"""Which errors of librdkafka pass by themselves, which do not, and what they mean for a transport.

Owns: the classes of error codes, and warnings that do not repeat themselves. Does not know: sources and sinks.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common import failures

log = logging.getLogger(__name__)

_WARNING_INTERVAL_S: Final = 10.0

# Errors that the client would retry for ever although only a person can mend them.
PERMANENT: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError._FATAL,
        KafkaError._FENCED,
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.UNSUPPORTED_VERSION,
    }
)
# Errors of a record that it will meet again however often it is sent.
REJECTED: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
# A commit that meets a rebalance. The broker answers it only after the JoinGroup that waits on the same connection, so
# it comes with the generation before. Trying again in the new one is safe: in a cooperative group nobody else gets a
# partition before this member has given it up. A member that is out of its group gets UNKNOWN_MEMBER_ID instead.
REBALANCING: Final = frozenset({KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION})


class TransientWarnings:
    """Logs errors that the client retries by itself; one that repeats, as at each reconnection, every ten seconds."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._next: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Log `error`, unless the like of it was logged just now."""
        now = time.monotonic()
        if now >= self._next.get(error.code(), now):
            self._next[error.code()] = now + _WARNING_INTERVAL_S
            log.warning("kafka %s: %s; retrying", self._bootstrap_servers, error)


def as_transport_error(error: BaseException, settings: KafkaSettings, topic: str) -> BaseException:
    """Return `error`, or if it is the client's own, what it means for the source."""
    if isinstance(error, KafkaException):
        wrapped = failures.refused(settings.bootstrap_servers, topic, "taking over partitions", error.args[0])
        wrapped.__cause__ = error
        return wrapped
    return error
