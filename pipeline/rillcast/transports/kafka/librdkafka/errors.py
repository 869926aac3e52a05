"""Which errors of librdkafka pass by themselves, which do not, and their meaning for a transport.

Owns: the classes of error codes, and warnings that do not repeat themselves. Does not know: sources and sinks.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common import failures

log = logging.getLogger(__name__)

_WARNING_INTERVAL_S: Final = 10.0

# Errors that the client would retry forever although they need operator action.
_PERMANENT: Final = frozenset(
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
# Errors that a record meets again however often it is sent.
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
# Errors of a commit during a rebalance. The broker answers it only after the JoinGroup that waits on the same
# connection, so it carries the previous generation. Repeating it in the new one is safe: in a cooperative group nobody
# gets a partition before this member has given it up. A member that is out of its group gets UNKNOWN_MEMBER_ID.
REBALANCING: Final = frozenset({KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION})
# Errors of a commit whose coordinator has moved to another broker, or is on its way. The client returns them at once,
# and calls none of them retriable. A commit that had an effect all the same may be repeated: it says the same.
COORDINATOR_MOVES: Final = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError._WAIT_COORD,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
    }
)

# Answers about a topic that was created or has grown, or whose leader came back, just now, until all know it.
NOT_READY: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._NOENT,  # "no leaders found": of a partition that was added just now
    }
)


def is_permanent(error: KafkaError) -> bool:
    """Return whether an error will not pass by itself."""
    return error.fatal() or error.code() in _PERMANENT


def is_fenced(error: KafkaError) -> bool:
    """Return whether the group has another member under this one's static name. A fatal error says so in its text."""
    reason = KafkaError(KafkaError.FENCED_INSTANCE_ID)
    return error.code() == reason.code() or (error.code() == KafkaError._FATAL and reason.str() in error.str())


def may_pass(error: Exception) -> bool:
    """Return whether a request is worth repeating. The client says so of almost none of its errors."""
    return isinstance(error, KafkaException) and error.args[0].code() not in _PERMANENT


class TransientWarnings:
    """Logs errors that the client retries by itself; one that repeats, as on each reconnection, every 10 s."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._next: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Log `error`, unless one with its code was logged in the last 10 s."""
        now = time.monotonic()
        if now >= self._next.get(error.code(), now):
            self._next[error.code()] = now + _WARNING_INTERVAL_S
            log.warning("kafka %s: %s; retrying", self._bootstrap_servers, error)


def refused(settings: KafkaSettings, topic: str, doing: str, error: KafkaException | KafkaError) -> TransportError:
    """Return the error for a request that the cluster refuses; `doing` says what was tried."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if is_fenced(cause):
        return failures.fenced(settings, topic, cause)
    return failures.refused(settings.bootstrap_servers, topic, doing, cause)


def as_transport_error(error: BaseException, settings: KafkaSettings, topic: str) -> BaseException:
    """Return `error`; one of the client as a `TransportError`."""
    if isinstance(error, KafkaException):
        wrapped = refused(settings, topic, "taking over partitions", error)
        wrapped.__cause__ = error
        return wrapped
    return error
