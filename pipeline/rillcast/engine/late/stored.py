"""The columns that retained steps add to a stored page, next to the bundle's states.

Owns: their names and types.
Does not know: how a page becomes bytes, or what a slot retains at the moment (`rillcast.engine.late.retained`).
Invariant: the names are part of the page format and never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rillcast.bundle.bundle import BundleMetadata, StateSpec
from rillcast.engine.pages import page_column

PREFIX: Final = "rewind."
OLDER: Final = PREFIX + "older."
YOUNGER: Final = PREFIX + "younger."
ANCHORS: Final = PREFIX + "slots"
"""The periods of the two anchors."""
INPUT: Final = PREFIX + "input."
REVISIONS: Final = PREFIX + "revisions"


def covariate_shapes(metadata: BundleMetadata) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of each covariate input of one event, by the input's name; all are float32."""
    shapes: dict[str, tuple[int, ...]] = {}
    if metadata.covariates:
        shapes["x"] = (len(metadata.covariates),)
    if metadata.known_ahead:
        shapes["future"] = (len(metadata.known_ahead), metadata.horizon)
    return shapes


def inputs_per_stream(periods: int) -> int:
    """Return how many inputs a stream retains for an allowed lateness of `periods`."""
    return 2 * periods + 1


def page_columns(metadata: BundleMetadata, periods: int) -> tuple[StateSpec, ...]:
    """Return what a stored page holds of each stream in addition to its states.

    Args:
        metadata: Metadata of the bundle.
        periods: Allowed lateness in periods; 0 = no column.
    """
    if not periods:
        return ()
    inputs, shapes = inputs_per_stream(periods), covariate_shapes(metadata)
    anchors = [(kind + spec.name, spec) for kind in (OLDER, YOUNGER) for spec in metadata.states]
    return (
        *(page_column(name, spec.dtype, spec.row_shape) for name, spec in anchors),
        page_column(ANCHORS, "int64", (2,)),
        page_column(INPUT + "ds", "int64", (inputs,)),
        page_column(INPUT + "y", "float32", (inputs,)),
        *(page_column(INPUT + name, "float32", (inputs, *shape)) for name, shape in shapes.items()),
        page_column(REVISIONS, "int32", (inputs,)),
    )


def is_row(name: str) -> bool:
    """Return whether a column of a page is an anchor, which may be stored in the form of the rows."""
    return name.startswith((OLDER, YOUNGER))
