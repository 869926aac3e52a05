"""Records that may be several observations each: bytes to columns, by a mapping (`expansion`).

Owns: the loop over records and their events, and which of a record's refusals becomes its dead letter (the first).
Does not know: paths, limits of an observation (`rillcast.codecs.observations.decoder`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rillcast.codecs.observations.covariates import CovariateColumns
from rillcast.codecs.observations.expansion import Event, Expansion
from rillcast.codecs.observations.fields import PolledRecords, RecordContext
from rillcast.codecs.observations.matching import Matching
from rillcast.codecs.observations.rejections import Reason, RefusedError, Rejection, rejection_of
from rillcast.events import NOTHING_MASKED, EventBatch

Open = Callable[[PolledRecords, int], tuple[Any, RecordContext]]
Check = Callable[[Event, int], None]


class ExpandedDecoder:
    """Decodes every record on its own."""

    def __init__(
        self,
        expansion: Expansion,
        open_record: Open,
        check: Check,
        columns: CovariateColumns | None,
        matching: Matching | None = None,
    ) -> None:
        """Prepare the decoder.

        Args:
            expansion: Which events a document is.
            open_record: Returns the document of a record, and its context. It raises `RefusedError`.
            check: Raises `RefusedError` where an event exceeds a limit; the second argument is the record's timestamp.
            columns: Reader of the covariates; None where none are declared.
            matching: Says which table of `[[models]]` takes an event; None = there is one model.
        """
        self._expansion = expansion
        self._open, self._check, self._columns = open_record, check, columns
        self._matching = matching

    def decode(self, records: PolledRecords) -> tuple[EventBatch, list[Rejection]]:
        """Decode a poll. A record has any number of events, and at most one rejection."""
        events: list[Event] = []
        rows: list[int] = []
        rejections: list[Rejection] = []
        left_out = 0
        timestamps: list[int] = records.timestamps_ms.tolist()
        for row, timestamp in enumerate(timestamps):
            refused: tuple[Reason, str] | None = None  # not the error: it and this frame would hold each other
            others = 0
            try:
                document, context = self._open(records, row)
                for found in self._expansion.events(document, context):
                    if isinstance(found, Event):
                        error = self._refusal(found, timestamp)
                        if error is None:
                            events.append(found)
                            rows.append(row)
                            continue
                    elif found is None:
                        left_out += 1
                        continue
                    else:
                        error = found
                    others += refused is not None
                    refused = refused or (error.reason, error.detail)
            except RefusedError as error:
                if error.reason is Reason.EMPTY and self._expansion.selects:
                    left_out += 1  # a tombstone has none of the members that are asked for
                    continue
                refused = error.reason, error.detail
            if refused is not None:
                more = f" (and {others} more of this record)" if others else ""
                reason, detail = refused
                rejections.append(rejection_of(records, row, reason, detail + more))
        batch = self._batch(records, events, rows, left_out)
        if self._matching is None:
            return batch, rejections
        meets = np.array([event.meets for event in events], np.int64)
        batch, unmatched = self._matching.divide(records, batch, meets)
        return batch, rejections + unmatched

    def keys(self, records: PolledRecords) -> list[str | None]:
        """Return the id of each record's entity; None for a record without events, and for all of several entities."""
        found: list[str | None] = [None] * len(records.values)
        if not self._expansion.has_many_keys:
            events, _ = self.decode(records)
            for row, key in zip(events.rows.tolist(), events.keys or (), strict=True):
                found[row] = key
        return found

    def _refusal(self, event: Event, timestamp: int) -> RefusedError | None:
        try:
            self._check(event, timestamp)
            if self._columns is not None:
                self._columns.columns([event])
        except RefusedError as error:
            return RefusedError(error.reason, event.where + error.detail)
        return None

    def _batch(self, records: PolledRecords, events: list[Event], rows: list[int], left_out: int) -> EventBatch:
        at = np.array(rows, np.int64)
        y = np.array([np.nan if event.y is None else event.y for event in events], np.float64)
        x, future, masked = (None, None, NOTHING_MASKED) if self._columns is None else self._columns.columns(events)
        return EventBatch(
            records.partitions[at],
            records.offsets[at],
            [event.unique_id for event in events],
            np.array([event.ds for event in events], np.int64),
            y.astype(np.float32),
            x,
            future,
            records.timestamps_ms[at],
            at,
            masked,
            left_out,
            [event.key for event in events],
        )
