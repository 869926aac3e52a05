"""Puts revised forecasts between those of the events of a poll, each behind the event that caused it.

Owns: that order, and the source that a revision names. Does not know: which forecasts are published, or as what.

A reader that keeps a stream's last record so has the forecast from its newest period, as it is now: a late event is
followed by all forecasts that it changed, in the order of time, the newest last.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.engine.late import Revised
from rillcast.events import EventBatch


def with_revisions(
    forecasts: ForecastColumns, rows: IntArray, revised: Revised, live: npt.NDArray[np.bool_], events: EventBatch
) -> tuple[ForecastColumns, IntArray]:
    """Merge revisions into the forecasts of events.

    Args:
        forecasts: The forecasts of events.
        rows: `(n,)` int64, the event of each, increasing.
        revised: The forecasts that the events changed.
        live: `(m,)`, whether each of these is taken in.
        events: The events of the poll.

    Returns:
        All of them, and the event that caused each.
    """
    assert forecasts.revision is not None  # the engine gives both or neither
    again = np.flatnonzero(live)
    causes = np.concatenate((rows, revised.rows[again]))
    order = np.argsort(causes, kind="stable")
    unique_ids = [*forecasts.unique_ids, *(events.unique_ids[row] for row in causes[rows.size :].tolist())]
    causes = causes[order]
    anomaly = None
    if forecasts.anomaly is not None and revised.anomaly is not None:
        anomaly = np.concatenate((forecasts.anomaly, revised.anomaly[again]))[order]
    merged = ForecastColumns(
        unique_ids=[unique_ids[row] for row in order.tolist()],
        ds=np.concatenate((forecasts.ds, revised.ds[again]))[order],
        status=np.concatenate((forecasts.status, revised.status[again]))[order],
        forecast=np.concatenate((forecasts.forecast, revised.forecast[again]))[order],
        anomaly=anomaly,
        partitions=events.partitions[causes],
        offsets=events.offsets[causes],
        revision=np.concatenate((forecasts.revision, revised.revision[again]))[order],
    )
    return merged, causes
