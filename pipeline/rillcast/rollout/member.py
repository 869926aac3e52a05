"""The serving side of this member, as a roll-out sees it.

Owns: which parts a roll-out works with. Does not know: models that do not serve.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rillcast.durability.assignment import Partitions
from rillcast.durability.checkpoint import Checkpoint
from rillcast.durability.restorer import Restorer
from rillcast.rollout.decoding import Decoder
from rillcast.serving.router import Router


@dataclass(frozen=True, slots=True)
class Member:
    """What this member serves.

    Attributes:
        router: Which model serves which partition.
        partitions: The partitions that this member owns.
        checkpoint: Knows the position at which each of them is served.
        restorer: Loads kept state.
        decoder: Decodes records as on the serving path.
    """

    router: Router
    partitions: Partitions
    checkpoint: Checkpoint
    restorer: Restorer
    decoder: Decoder

    def positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the position at which each of some partitions is served."""
        return {number: self.checkpoint.position(number) for number in partitions}
