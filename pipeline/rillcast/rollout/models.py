"""Where the models of a roll-out come from, as the roll-out sees it.

Owns: the protocol, and the answer when there is no registry. Does not know: registries, or when a model takes over.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from rillcast.serving.served_model import ServedModel


class Names(NamedTuple):
    """Ids of models.

    Attributes:
        wanted: The model that should serve; None = the one that serves, because no other is asked for, or it is not
            known yet which.
        shadow: The model that is compared with it; None = none.
    """

    wanted: str | None = None
    shadow: str | None = None


class Models(Protocol):
    """Where models come from."""

    def names(self) -> Names:
        """Return which models are asked for, as far as is known; never waits."""
        ...

    def open(self, model_id: str) -> ServedModel | None:
        """Return a new model without streams; None while it is being prepared, which the first call starts.

        Raises:
            RillcastError: The model cannot be opened; if the error is not `retriable`, it never will be.
        """
        ...

    def open_now(self, model_id: str) -> ServedModel | None:
        """Return a new model that served before, however long that takes; None if it is unavailable.

        Raises:
            RillcastError: The model cannot be opened.
        """
        ...

    def close(self) -> None:
        """Release resources; may be called twice."""
        ...


class NoModels:
    """No model but the one that serves already."""

    def names(self) -> Names:
        """Return that no model is asked for."""
        return Names()

    def open(self, model_id: str) -> ServedModel | None:  # noqa: ARG002  the protocol names it
        """Return that the model is unavailable."""
        return None

    def open_now(self, model_id: str) -> ServedModel | None:  # noqa: ARG002  the protocol names it
        """Return that the model is unavailable."""
        return None

    def close(self) -> None:
        """Do nothing."""
