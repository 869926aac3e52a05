"""A state that changes by legal transitions only.

Owns: the check. Does not know: which states there are; each machine draws its own in its module's docstring.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Set
from typing import Generic, TypeVar

from rillcast.errors import IllegalTransitionError

S = TypeVar("S", bound=enum.Enum)


class StateMachine(Generic[S]):
    """Holds one state of an enum. Used from one thread."""

    def __init__(self, subject: str, initial: S, legal: Mapping[S, Set[S]]) -> None:
        """Begin in a state.

        Args:
            subject: What has this state, for messages.
            initial: The first state.
            legal: The states that may follow each state; a state without any is terminal.
        """
        self._subject = subject
        self._legal = legal
        self._state = initial

    @property
    def state(self) -> S:
        """The current state."""
        return self._state

    def become(self, state: S) -> None:
        """Change the state.

        Raises:
            IllegalTransitionError: The transition is not legal; the state stays as it is.
        """
        if state not in self._legal[self._state]:
            raise IllegalTransitionError(
                f"{self._subject}: a transition from {self._state.value} to {state.value} is not legal; legal are "
                f"{', '.join(sorted(each.value for each in self._legal[self._state])) or 'none'}"
            )
        self._state = state
