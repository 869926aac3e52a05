"""The aggregate of the events that a bundle was trained on, and whether another one fits it.

Owns: where the metadata remember it, and the words. Does not know: settings, what an aggregate computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from rillcast.bundle.metadata import BundleMetadata

MEMBER: Final = "aggregate"
"""Member of `training` in the metadata: `aggregate`, `close`, `empty` and `silent_after`, as in the settings.

`empty` is `zero` or `missing`.
"""


def trained_aggregate(metadata: BundleMetadata) -> Mapping[str, Any] | None:
    """Return how the events of the training data were aggregated; None = they were observations, or it is unknown."""
    found = metadata.training.get(MEMBER)
    return found if isinstance(found, Mapping) and isinstance(found.get("aggregate"), str) else None


def contradiction(metadata: BundleMetadata, aggregate: str) -> str | None:
    """Return why the model does not fit events that are aggregated in another way; None = it does, or may.

    `none` is no contradiction: the events may have been aggregated before.
    """
    trained = trained_aggregate(metadata)
    if trained is None or aggregate in ("none", trained["aggregate"]):
        return None
    return (
        f"model {metadata.name} was trained on events aggregated by {trained['aggregate']!r}, and these would be "
        f"aggregated by {aggregate!r}"
    )


def doubt(metadata: BundleMetadata, aggregate: str, empty: Literal["zero", "missing"]) -> str | None:
    """Return why the model may not fit: events as they come, or other values of empty periods; None = no doubt.

    Args:
        metadata: Of the model.
        aggregate: `input.aggregate`.
        empty: Value of a period without values.
    """
    trained = trained_aggregate(metadata)
    if trained is None:
        return None
    if aggregate == "none":
        return (
            f"model {metadata.name} was trained on events aggregated by {trained['aggregate']!r}, and these are taken "
            f"as they come; that is right only if they were aggregated before"
        )
    if empty != trained.get("empty", empty):
        return f"model {metadata.name} was trained with empty periods as {trained['empty']}, and here they are {empty}"
    return None
