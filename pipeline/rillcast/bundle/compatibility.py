"""Which model may take the place of one that serves, while it serves.

Consumers read the forecasts of both as one stream of records, and what watches the service (page, metrics, read API)
goes on through the change. So the records have to be of one kind: the same frequency, horizon and levels, and the same
scores; and the events have to be of one kind, with the same covariates. Anything else takes a restart, which is a
decision of the person who changes the settings with it.

Owns: what has to be the same. Does not know: registries, states, graphs.
"""

from __future__ import annotations

from typing import Final

from rillcast.bundle.metadata import BundleMetadata
from rillcast.errors import RolloutRefusedError

_SAME: Final = ("freq", "horizon", "quantiles", "scores", "covariates")


def require_compatible(serving: BundleMetadata, candidate: BundleMetadata) -> None:
    """Raise unless one model may take the place of the other.

    Raises:
        RolloutRefusedError: it says what differs.
    """
    for name in _SAME:
        found, expected = getattr(candidate, name), getattr(serving, name)
        if sorted(found) != sorted(expected) if name == "scores" else found != expected:  # their order says nothing
            raise RolloutRefusedError(
                f"its {name} is {_shown(found)}, that of the serving model {_shown(expected)}; "
                f"readers of the forecasts go by it: to change it, restart the service with --model naming this one"
            )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(str(getattr(each, "name", each)) for each in value) + "]"
    return str(value)
