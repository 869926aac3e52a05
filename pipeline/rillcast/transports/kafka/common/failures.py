"""Errors of Kafka, in the same words for both clients.

Owns: the text of the errors that users meet first (broker away, topic missing, not authorised, fenced). Does not know:
either client library.
"""

from __future__ import annotations

from collections.abc import Iterable

from rillcast.errors import DeliveryError, FencedError, TransportError, UnreachableError
from rillcast.settings import KafkaSettings


def unreachable(bootstrap_servers: str, waited_s: float, cause: object) -> UnreachableError:
    """Return the error for brokers that did not answer."""
    return UnreachableError(
        f"kafka {bootstrap_servers}: no broker answered within {waited_s:g} s ({cause}); check "
        f"kafka.bootstrap_servers, kafka.security_protocol and that the brokers are up"
    )


def missing_topics(bootstrap_servers: str, topics: Iterable[str]) -> TransportError:
    """Return the error for topics that do not exist, or that this client may not describe."""
    return TransportError(
        f"kafka {bootstrap_servers}: topic {', '.join(sorted(topics))} does not exist, or this client may not describe "
        f"it; create it (reading and writing never do) or grant DESCRIBE"
    )


def refused(bootstrap_servers: str, topic: str, doing: str, cause: object) -> TransportError:
    """Return the error for a request that the cluster keeps refusing: authorisation, a bad position, fencing."""
    return TransportError(f"kafka {bootstrap_servers}, topic {topic}: {doing} failed: {cause}")


def fenced(settings: KafkaSettings, topic: str, cause: object) -> FencedError:
    """Return the error for a static member whose name its group gave to another member id (KIP-345)."""
    return FencedError(
        f"kafka {settings.bootstrap_servers}, topic {topic}: group {settings.group_id} knows another member as "
        f"kafka.group_instance_id {settings.group_instance_id} ({cause}), so nothing after the last commit counts. A "
        f"broker that crashed during a rebalance does that, or a second process with this name: start again, and look "
        f"for a second process if it happens repeatedly"
    )


def not_committed(bootstrap_servers: str, topic: str, group_id: str, cause: object) -> TransportError:
    """Return the error for positions that did not become durable."""
    return TransportError(
        f"kafka {bootstrap_servers}, topic {topic}: group {group_id} could not commit ({cause}); another member may "
        f"own the partitions now, so nothing after the last commit counts: restart from it"
    )


def not_delivered(bootstrap_servers: str, failed: int, first: object) -> DeliveryError:
    """Return the error for records that the brokers did not accept."""
    remedy = "restart from the last commit"
    if "timestamp" in str(first).lower():
        remedy = (
            "set the clocks of this machine and of the brokers, which differ by more than the topic takes "
            "(message.timestamp.after.max.ms), or alter the topic to message.timestamp.type=LogAppendTime"
        )
    return DeliveryError(
        f"kafka {bootstrap_servers}: {failed} published records were not delivered, the first because of: {first}; "
        f"their input must not be committed, so {remedy}"
    )


def not_in_time(bootstrap_servers: str, pending: int, waited_s: float) -> DeliveryError:
    """Return the error for records that were not acknowledged in time."""
    return DeliveryError(
        f"kafka {bootstrap_servers}: {pending} published records were not acknowledged within {waited_s:g} s; the "
        f"broker is away or overloaded; their input must not be committed"
    )
