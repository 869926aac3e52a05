"""Classes of kafka-python's errors, and their translation into errors of a transport.

Owns: these classes and the translation. Does not know: sources and sinks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kafka.errors import (
    ClusterAuthorizationFailedError,
    CommitFailedError,
    InvalidRecordError,
    KafkaError,
    KafkaTimeoutError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    PolicyViolationError,
    RebalanceInProgressError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common import failures

TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
# Errors that a record meets again however often it is sent. ValueError: the client cannot encode it, or there is no
# such partition.
REJECTED: Final = (
    ValueError,
    *TOO_LARGE,
    InvalidRecordError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
    ClusterAuthorizationFailedError,
)
# Answers about a topic that was created just now, until its leaders are known everywhere.
NOT_READY: Final = (UnknownTopicOrPartitionError, LeaderNotAvailableError, NotLeaderForPartitionError)


def is_rebalancing(error: Exception) -> bool:
    """Return whether a commit failed only because the member is between two generations."""
    if isinstance(error, CommitFailedError):
        return bool(error.args) and isinstance(error.args[0], RebalanceInProgressError)
    return isinstance(error, RebalanceInProgressError)


@contextmanager
def as_transport_errors(settings: KafkaSettings, topic: str, doing: str) -> Iterator[None]:
    """Raise errors of the client as `TransportError`.

    Args:
        settings: Say which brokers were asked and for how long.
        topic: Topic that was asked about.
        doing: Name of the attempt, for the message, such as "listing topics".
    """
    try:
        yield
    except KafkaTimeoutError as error:
        raise failures.unreachable(settings.bootstrap_servers, settings.request_timeout_s, error) from error
    except KafkaError as error:
        raise failures.refused(settings.bootstrap_servers, topic, doing, error) from error
