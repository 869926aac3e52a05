"""What goes wrong with Kafka, in the same words for both clients.

Owns: the text of the errors that people meet first (broker away, topic missing, not authorised, fenced). Does
not know: either client library.
"""

from __future__ import annotations

from collections.abc import Iterable

from rillcast.errors import DeliveryError, TransportError


def unreachable(bootstrap_servers: str, waited_s: float, cause: object) -> TransportError:
    """Return the error for brokers that did not answer."""
    return TransportError(
        f"kafka {bootstrap_servers}: no broker answered within {waited_s:g} s ({cause}); check "
        f"kafka.bootstrap_servers, kafka.security_protocol and that the brokers are up"
    )


def missing_topics(bootstrap_servers: str, topics: Iterable[str]) -> TransportError:
    """Return the error for topics that are not there, or that this client may not see."""
    return TransportError(
        f"kafka {bootstrap_servers}: topic {', '.join(sorted(topics))} does not exist, or this client may not describe "
        f"it; create it (it is never created by reading or writing) or grant DESCRIBE"
    )


def refused(bootstrap_servers: str, topic: str, doing: str, cause: object) -> TransportError:
    """Return the error for a request that the cluster will go on refusing: authorisation, a bad position, fencing."""
    return TransportError(f"kafka {bootstrap_servers}, topic {topic}: {doing} failed: {cause}")


def not_committed(bootstrap_servers: str, topic: str, group_id: str, cause: object) -> TransportError:
    """Return the error for positions that did not become durable."""
    return TransportError(
        f"kafka {bootstrap_servers}, topic {topic}: group {group_id} could not commit ({cause}); another member may "
        f"own the partitions by now, so nothing after the last commit counts: start again from it"
    )


def not_delivered(bootstrap_servers: str, failed: int, first: object) -> DeliveryError:
    """Return the error for records that the brokers did not take."""
    return DeliveryError(
        f"kafka {bootstrap_servers}: {failed} published records were not delivered, the first because of: {first}; "
        f"their input must not be committed, so start again from the last commit"
    )


def not_in_time(bootstrap_servers: str, pending: int, waited_s: float) -> DeliveryError:
    """Return the error for records that were not acknowledged before the time was up."""
    return DeliveryError(
        f"kafka {bootstrap_servers}: {pending} published records were not acknowledged within {waited_s:g} s; the "
        f"broker is away or overloaded, and their input must not be committed"
    )
