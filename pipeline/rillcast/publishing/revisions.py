"""Puts revised forecasts between those of the events of a poll, each behind the event that caused it.

Owns: that order, and what a revision says of its source. Does not know: which forecasts are published, or as what.

Whoever keeps a stream's last record so has the forecast from its newest slot, as it is now: an event that is put into
place is followed by all forecasts that it changed, in the order of time, the newest last.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.engine.late import Revised
from rillcast.events import EventBatch


def with_revisions(
    columns: ForecastColumns,
    rows: IntArray,
    revised: Revised,
    kept: npt.NDArray[np.bool_],
    events: EventBatch,
) -> tuple[ForecastColumns, IntArray]:
    """Merge revisions into the forecasts of events.

    Args:
        columns: forecasts of events.
        rows: `(n,)` int64, which events these are, increasing.
        revised: what the events changed.
        kept: `(m,)`, which of these to take in.
        events: The events of the poll.

    Returns:
        All of them, and for each the record of the poll that caused it.
    """
    assert columns.revision is not None  # the engine gives both or neither
    again = np.flatnonzero(kept)
    cause = revised.rows[again]
    order = np.argsort(np.concatenate((rows, cause)), kind="stable")
    causes = np.concatenate((rows, cause))[order]
    unique_ids = [*columns.unique_ids, *(events.unique_ids[row] for row in cause.tolist())]
    anomaly = None
    if columns.anomaly is not None and revised.anomaly is not None:
        anomaly = np.concatenate((columns.anomaly, revised.anomaly[again]))[order]
    merged = ForecastColumns(
        unique_ids=[unique_ids[row] for row in order.tolist()],
        ds=np.concatenate((columns.ds, revised.ds[again]))[order],
        status=np.concatenate((columns.status, revised.status[again]))[order],
        forecast=np.concatenate((columns.forecast, revised.forecast[again]))[order],
        anomaly=anomaly,
        partitions=events.partitions[causes],
        offsets=events.offsets[causes],
        revision=np.concatenate((columns.revision, revised.revision[again]))[order],
    )
    return merged, events.rows[causes]
