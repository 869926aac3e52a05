"""The cooperative-sticky assignor of kafka-python, corrected so that no partition goes to two members at once.

A member that was put out of its group (stopped past its session, then woken) goes on claiming the partitions that it
had when it joins again: kafka-python 3.0.12 never clears `member_assignment`, and its claims carry no generation. As
the leader it takes one of two claims for the owner's, so it may hand the partition on while the real owner still has to
give it up. In that moment both are members of the generation, both commits are valid, and events are published twice:
2,000 forecasts in one run of the chaos suite.

Here a partition that two members claim goes to nobody in this round. Whoever has it gives it up, committing, and joins
again; in the next round nobody claims it and it has one owner. Java's leader does the same with claims of one
generation (AbstractStickyAssignor). And `forget` clears the claims of a member that has lost its partitions.

Owns: this correction. Does not know: how partitions are balanced.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment


class OneOwnerAssignor(CooperativeStickyAssignor):  # type: ignore[misc]  # the package has no type information
    """Speaks the same protocol under the same name, so that members of other versions go on in the group."""

    def assign(self, cluster: Any, members: Sequence[Any]) -> Mapping[str, Any]:
        """Return the assignment of each member for this round."""
        claims = Counter(key for member in members for key in self.parse_member_metadata(member.metadata).partitions)
        disputed = {key for key, count in claims.items() if count > 1}
        assigned: Mapping[str, Any] = super().assign(cluster, members)
        return {member: _without(each, disputed) for member, each in assigned.items()} if disputed else assigned


def forget(consumer: Any) -> None:
    """Let a consumer that has lost its partitions claim none when it joins again."""
    for assignor in consumer._coordinator._assignors.values():
        assignor.member_assignment = None


def _without(assignment: Any, disputed: set[TopicPartition]) -> Any:
    kept: dict[str, list[int]] = defaultdict(list)
    for key in assignment.partitions():
        if key not in disputed:
            kept[key.topic].append(key.partition)
    topics = sorted((topic, sorted(numbers)) for topic, numbers in kept.items())
    return ConsumerProtocolAssignment(assignment.version, topics, assignment.user_data)
