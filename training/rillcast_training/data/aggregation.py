"""Tables of raw events to one observation for each stream and period, as the service aggregates them.

Owns: how a table is aggregated. Does not know: what an aggregate computes (`rillcast.engine.periods`), files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from rillcast.bundle.frequency import parse
from rillcast.errors import DataError
from rillcast_training.data.columns import Aggregate


def aggregated(frame: pl.DataFrame, freq: str, given: Aggregate | None, source: str | Path) -> pl.DataFrame:
    """Return a table `unique_id, ds, y` of observations, each at the beginning of its period.

    All events count, in the order of time: nothing is late in a table.

    Args:
        frame: Table of events `unique_id, ds, y`.
        freq: Frequency of the periods.
        given: How the events are aggregated; None = they are observations, and the table is returned as it is.
        source: Name of the table in errors.

    Raises:
        DataError: The table has covariates, which are not aggregated, or `freq` is no frequency.
    """
    if given is None:
        return frame
    try:
        frequency = parse(freq)
    except ValueError as error:
        raise DataError(str(error)) from error
    if covariates := frame.columns[3:]:
        raise DataError(
            f"{source}: --aggregate {given.kind} with the covariates {', '.join(covariates)}, which are not "
            f"aggregated: a period has several values of each. Aggregate the table first, or leave out --covariate"
        )
    from rillcast.engine.periods import aggregate

    names = frame["unique_id"].unique(maintain_order=True)
    which = frame["unique_id"].cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)
    found = aggregate(which, frame["ds"].to_numpy(), frame["y"].to_numpy().astype(np.float32), given.of(freq))
    return pl.DataFrame(
        {
            "unique_id": names.gather(found.which),
            "ds": np.asarray(frequency.start_of(found.periods), np.int64),
            "y": found.y.astype(np.float64),
        }
    )
