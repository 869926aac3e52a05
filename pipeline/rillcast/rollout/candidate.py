"""A model that an alias names and that does not serve every partition yet, and the states that it goes through.

        an alias names the model
                  |
           +------v------+       retry_s later       +----------+
           |  PREPARING  |<--------------------------|  FAILED  |
           |             |-------------------------->|          |
           +--+-------+--+                           +--^----+--+
              |       |           it fails              |    |
       opened |       |  +------------------------------+    |
              |       |  |                                   |
           +--v-------|--+--+   caught up   +--------------+ |
           |  FOLLOWING     |-------------->| HANDING_OVER | |
           |          |     |<--------------|              | |
           +--+-------|-----+   committed   +------+-------+ |
              |       |         or reset           |         |
              |  +----v----+                       |         |
              |  | REFUSED |  serves all, or       |         |
              |  +----+----+  is not needed        |         |
              |       |                            |         |
           +--v-------v----------------------------v---------v--+
           |                       ENDED                        |
           +----------------------------------------------------+

    PREPARING       Its bundle is pulled, checked and loaded.
    FOLLOWING       It is stepped behind the serving model, to take over or as a shadow. Refusal is possible here too.
    HANDING_OVER    The commit is being built that hands partitions to it.
    FAILED          It is closed, and tried again after `rollout.retry_s`.
    REFUSED         It is closed, and not tried again until the alias has named another model.
    ENDED           It serves every partition, the alias names another model, or there is nothing to follow.

Owns: the states and their legal transitions. Does not know: what causes a transition.
"""

from __future__ import annotations

import enum
from typing import Final

from rillcast.durability.state_machine import StateMachine
from rillcast.rollout.follower import Follower
from rillcast.rollout.pacing import Pacing


class CandidateState(enum.Enum):
    """See the module's docstring."""

    PREPARING = "preparing"
    FOLLOWING = "following"
    HANDING_OVER = "handing over"
    FAILED = "failed"
    REFUSED = "refused"
    ENDED = "ended"


_S = CandidateState
LEGAL: Final = {
    _S.PREPARING: {_S.FOLLOWING, _S.FAILED, _S.REFUSED, _S.ENDED},
    _S.FOLLOWING: {_S.HANDING_OVER, _S.FAILED, _S.REFUSED, _S.ENDED},
    _S.HANDING_OVER: {_S.FOLLOWING, _S.ENDED},
    _S.FAILED: {_S.PREPARING, _S.ENDED},
    _S.REFUSED: {_S.ENDED},
    _S.ENDED: set[CandidateState](),
}


class Candidate:
    """A model from when an alias names it until it serves or is not needed any more.

    Attributes:
        model_id: The model.
        pacing: How much of the loop's time it gets.
        follower: Steps the model; None unless it is following or handing over.
        retry_at: When a model that failed is tried again, in monotonic seconds.
        caught_up_at: When it last had no lag in any partition, in monotonic seconds; None = not yet.
    """

    def __init__(self, model_id: str, pacing: Pacing) -> None:
        self.model_id = model_id
        self.pacing = pacing
        self.follower: Follower | None = None
        self.retry_at = 0.0
        self.caught_up_at: float | None = None
        self._machine = StateMachine(f"roll-out of model {model_id}", CandidateState.PREPARING, LEGAL)

    @property
    def state(self) -> CandidateState:
        """The current state."""
        return self._machine.state

    @property
    def stopped(self) -> bool:
        """Whether it failed or was refused, so that it waits for the time or for the alias."""
        return self.state in (CandidateState.FAILED, CandidateState.REFUSED)

    def follow(self, follower: Follower) -> None:
        """Begin to follow: the model is open. Raises `IllegalTransitionError`, as all methods below, if not legal."""
        self._machine.become(CandidateState.FOLLOWING)
        self.follower = follower

    def hand_over(self) -> None:
        """Begin to take partitions over."""
        self._machine.become(CandidateState.HANDING_OVER)

    def go_on(self) -> None:
        """Follow on: the commit has succeeded and partitions are left, or it failed."""
        self._machine.become(CandidateState.FOLLOWING)

    def fail(self, retry_at: float) -> None:
        """Stop until `retry_at`."""
        self._machine.become(CandidateState.FAILED)
        self.retry_at = retry_at
        self._close()

    def refuse(self) -> None:
        """Stop for as long as the alias names the model."""
        self._machine.become(CandidateState.REFUSED)
        self._close()

    def retry(self) -> None:
        """Prepare the model again."""
        self._machine.become(CandidateState.PREPARING)
        self.pacing.restart()

    def end(self) -> None:
        """Stop for good."""
        self._machine.become(CandidateState.ENDED)
        self._close()

    def _close(self) -> None:
        if self.follower is not None:
            self.follower.close()
        self.follower = self.caught_up_at = None
