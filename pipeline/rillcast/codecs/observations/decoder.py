"""Observation records: bytes to columns.

Owns: the limits on an observation, and the rejection of records.
Does not know: where the bytes come from, how a format is written (`rillcast.codecs.observations.format`), how a model
uses the columns.
Invariants: a bad record is rejected with a reason and never stops the others. A rejection depends on the record alone,
never on the clock, so a replay rejects the same records.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.codecs.observations.cloudevents import open_event
from rillcast.codecs.observations.covariates import CovariateColumns
from rillcast.codecs.observations.expanded import ExpandedDecoder
from rillcast.codecs.observations.expansion import Event, Expansion
from rillcast.codecs.observations.fields import Fields, Observation, PolledRecords, RecordContext
from rillcast.codecs.observations.first_look import FirstLook
from rillcast.codecs.observations.format import Format
from rillcast.codecs.observations.json import JsonFormat
from rillcast.codecs.observations.matching import Matching
from rillcast.codecs.observations.precision import PrecisionWatch
from rillcast.codecs.observations.rejections import Reason, RefusedError, Rejection, rejection_of
from rillcast.events import NOTHING_MASKED, EventBatch, Masked
from rillcast.reading.times import MAX_DS_MS, MIN_DS_MS, is_date_number

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_LIKELY_DS_MS: Final = 22_001_232
"""Whole numbers below are early on 1970-01-01, or dates without dashes."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits on an observation.

    Attributes:
        max_record_bytes: Largest value in bytes.
        max_id_bytes: Longest `unique_id` in bytes of UTF-8.
        max_abs_y: Largest magnitude of `y`.
        max_future_ms: Milliseconds by which `ds` may lie after the record's timestamp; 0 = any amount. A record without
            a known timestamp passes.
    """

    max_record_bytes: int = 1_048_576
    max_id_bytes: int = 512
    max_abs_y: float = 1e15
    max_future_ms: int = 0


class ObservationDecoder:
    """PolledRecords to columns.

    A batch of records in the usual forms costs one list comprehension per column. Only a batch with a record of another
    form, or a bad one, is read one by one.
    """

    def __init__(
        self,
        limits: DecodeLimits | None = None,
        form: Format | None = None,
        fields: Fields | None = None,
        *,
        cloudevents: bool = False,
        columns: CovariateColumns | None = None,
        first_look: FirstLook | None = None,
        expansion: Expansion | None = None,
        matching: Matching | None = None,
    ) -> None:
        """Prepare the decoder.

        Args:
            limits: Limits on an observation.
            form: Format of the values; None = JSON.
            fields: Where a record has its stream, time and observation; None = members of the plain names.
            cloudevents: Whether each record is a CloudEvent around its value.
            columns: Reader of the covariates that `fields` declares; None where it declares none.
            first_look: Judges the first events; None = nothing is judged.
            expansion: Mapping under which a record may be several events, in place of `fields`; None = each is one.
            matching: Says which table of `[[models]]` takes an event; None = there is one model. One that asks for
                members needs an expansion with it.
        """
        self._limits = limits or DecodeLimits()
        self._format = form or JsonFormat()
        self._json = JsonFormat()
        self._cloudevents = cloudevents
        self._columns = columns
        self._first_look = first_look
        self._matching = matching
        self._precision = PrecisionWatch()
        self._expanded: ExpandedDecoder | None = None
        if expansion is not None:
            whole: Any = Any  # a type to the formats, and none to a type checker
            own_json = self._format if isinstance(self._format, JsonFormat) else self._json
            self._whole = _Path(self._format.decoder(whole), own_json.decoder(whole), _whole)
            self._expanded = ExpandedDecoder(expansion, self._open, self._check, columns, matching)
            return
        fields = fields or Fields()
        shape, any_shape = fields.shape, fields.any_shape
        self._usual = _Path(self._format.decoder(shape), self._json.decoder(shape), fields.getter())
        self._careful = _Path(self._format.decoder(any_shape), self._json.decoder(any_shape), fields.any_getter())
        self._read: Callable[[PolledRecords], list[Observation]] = self._read_values
        if cloudevents or fields.needs_context:
            self._read = self._read_records
        elif not fields.plain:
            self._read = self._read_mapped

    def decode(self, records: PolledRecords) -> tuple[EventBatch, list[Rejection]]:
        """Decode a poll; every row is in exactly one of the two results.

        Raises:
            TransportError: A schema registry does not answer.
            DataError: The first events of a file have unlikely times.
        """
        decoded = self._decoded(records)
        if self._first_look is not None and self._first_look.done(records, decoded[0]):
            self._first_look = None
        return decoded

    def _decoded(self, records: PolledRecords) -> tuple[EventBatch, list[Rejection]]:
        if self._expanded is not None:
            found = self._expanded.decode(records)
            self._precision.see(found[0].unique_ids, found[0].y.astype(np.float64))
            return found
        try:
            events, rejections = self._decode_all(records), list[Rejection]()
        except (
            _NeedsCareError,
            RefusedError,
            TypeError,
            msgspec.MsgspecError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ):
            events, rejections = self._decode_one_by_one(records)
        if self._matching is None:
            return events, rejections
        events, unmatched = self._matching.divide(records, events)
        return events, rejections + unmatched

    def streams(self, records: PolledRecords) -> list[str | None]:
        """Return the stream of each record, None for one that `decode` would reject. Nothing is noted of them.

        Of a record with several events it is what the ids of its streams have in common. Where these may be different
        entities, no record has a stream.
        """
        if self._expanded is not None:
            return self._expanded.keys(records)
        if not records.faults:
            try:
                return [event.unique_id for event in self._read(records)]
            except (RefusedError, TypeError, msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):
                pass  # some record needs care; decoding one by one finds out which
        found: list[str | None] = []
        for row in range(len(records.values)):
            try:
                found.append(self._checked(records, row).unique_id)
            except RefusedError:
                found.append(None)
        return found

    def _decode_all(self, records: PolledRecords) -> EventBatch:
        limits, values = self._limits, records.values
        if records.faults or any(value is None or len(value) > limits.max_record_bytes for value in values):
            raise _NeedsCareError
        events = self._read(records)
        ids = [event.unique_id for event in events]
        if ids and max(map(len, ids)) * 4 > limits.max_id_bytes:  # UTF-8 takes at most 4 bytes a character
            raise _NeedsCareError
        ds = np.fromiter((_epoch_ms(event.ds) for event in events), dtype=np.int64, count=len(events))
        if ds.size and (ds.min() < _LIKELY_DS_MS or ds.max() > MAX_DS_MS) and not _all_usual(ds):
            raise _NeedsCareError
        if limits.max_future_ms and np.any((ds - records.timestamps_ms > limits.max_future_ms) & _known(records)):
            raise _NeedsCareError
        y = np.array([event.y for event in events], dtype=np.float64)  # None becomes NaN
        if np.any(np.abs(y) > limits.max_abs_y):
            raise _NeedsCareError
        self._precision.see(ids, y)
        x, future, masked = self._covariates(events)
        return EventBatch(
            records.partitions,
            records.offsets,
            ids,
            ds,
            y.astype(np.float32),
            x,
            future,
            records.timestamps_ms,
            masked=masked,
        )

    def _covariates(self, events: Sequence[Observation]) -> tuple[FloatArray | None, FloatArray | None, Masked]:
        """Return `x`, `future` and the number of their values that the model does not see."""
        return (None, None, NOTHING_MASKED) if self._columns is None else self._columns.columns(events)

    # Three functions for the same list; the first is the hot path.

    def _read_values(self, records: PolledRecords) -> list[Observation]:
        decode = self._usual.decode
        return [decode(value) for value in records.values]

    def _read_mapped(self, records: PolledRecords) -> list[Observation]:
        decode, get = self._usual.decode, self._usual.get
        return [get(decode(value), None) for value in records.values]

    def _read_records(self, records: PolledRecords) -> list[Observation]:
        return [self._observe(records, row, self._usual) for row in range(len(records.values))]

    def _observe(self, records: PolledRecords, row: int, path: _Path) -> Observation:
        """Return the observation of one record.

        Raises:
            RefusedError: The record has no observation.
        """
        value = records.values[row]
        context = RecordContext(records, row)
        decode, form = path.decode, self._format
        if self._cloudevents:
            value, is_json, attributes = open_event(records, row)
            context = RecordContext(records, row, attributes)
            if is_json:
                decode, form = path.decode_json, self._json
        if not value:
            raise RefusedError(Reason.EMPTY, "the record has no value")
        try:
            return path.get(decode(value), context)
        except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError, TypeError) as error:
            raise RefusedError(*form.refusal(value, error)) from error

    def _decode_one_by_one(self, records: PolledRecords) -> tuple[EventBatch, list[Rejection]]:
        rows: list[int] = []
        events: list[Observation] = []
        rejections: list[Rejection] = []
        for row in range(len(records.values)):
            try:
                event = self._checked(records, row)
            except RefusedError as refused:
                rejections.append(rejection_of(records, row, refused.reason, refused.detail))
            else:
                rows.append(row)
                events.append(event)
        ids = [event.unique_id for event in events]
        ds = np.array([event.ds for event in events], np.int64)
        y = np.array([np.nan if event.y is None else event.y for event in events], np.float64)
        self._precision.see(ids, y)
        x, future, masked = self._covariates(events)
        at = np.array(rows, np.int64)
        partitions, offsets, timestamps_ms = records.partitions[at], records.offsets[at], records.timestamps_ms[at]
        return (
            EventBatch(partitions, offsets, ids, ds, y.astype(np.float32), x, future, timestamps_ms, at, masked),
            rejections,
        )

    def _checked(self, records: PolledRecords, row: int) -> Observation:
        """Return the observation of one record, read with care and checked against the limits.

        Raises:
            RefusedError: The record has no observation, or the observation exceeds a limit.
        """
        self._usable(records, row)
        event = self._observe(records, row, self._careful)
        self._check(event, int(records.timestamps_ms[row]))
        if self._columns is not None:
            self._covariates([event])
        return event

    def _open(self, records: PolledRecords, row: int) -> tuple[Any, RecordContext]:
        """Return the whole document of one record, and its context.

        Raises:
            RefusedError: The record is no document.
        """
        self._usable(records, row)
        opened: Any = self._observe(records, row, self._whole)
        document, context = opened
        return document, context

    def _usable(self, records: PolledRecords, row: int) -> None:
        """Refuse a record that is too large, or that the reader of a file could not read."""
        limits, value = self._limits, records.values[row]
        if value is not None and len(value) > limits.max_record_bytes:
            raise RefusedError(
                Reason.TOO_LARGE, f"{len(value)} bytes, input.max_record_bytes is {limits.max_record_bytes}"
            )
        if (fault := records.faults.get(row)) is not None:
            raise RefusedError(Reason(fault.kind), fault.detail)

    def _check(self, event: Observation | Event, timestamp: int) -> None:
        """Refuse an observation that exceeds a limit; `timestamp` is its record's, -1 = unknown."""
        limits = self._limits
        if (size := len(event.unique_id.encode(errors="surrogatepass"))) > limits.max_id_bytes:
            raise RefusedError(
                Reason.BAD_ID, f"unique_id has {size} bytes, input.max_id_bytes is {limits.max_id_bytes}"
            )
        assert isinstance(event.ds, int)  # read with care, it is milliseconds
        if limits.max_future_ms and timestamp >= 0 and event.ds - timestamp > limits.max_future_ms:
            raise RefusedError(
                Reason.FROM_THE_FUTURE,
                f"ds lies {(event.ds - timestamp) / 1000:g} s after the record's timestamp, "
                f"input.max_future_s is {limits.max_future_ms / 1000:g}",
            )
        if event.y is not None and abs(event.y) > limits.max_abs_y:
            raise RefusedError(
                Reason.Y_OUT_OF_RANGE, f"|y| = {abs(event.y):g}, input.max_abs_y is {limits.max_abs_y:g}"
            )


class _Path(NamedTuple):
    """A way from a value to an observation: how it is decoded, also as JSON, and what is taken of it."""

    decode: Callable[[Any], Any]
    decode_json: Callable[[Any], Any]
    get: Callable[[Any, Any], Observation]


class _NeedsCareError(Exception):
    """Some record of the batch may need a rejection; decoding one by one finds out which."""


def _known(records: PolledRecords) -> Any:
    return records.timestamps_ms >= 0


def _all_usual(ds: IntArray) -> bool:
    """Whether every time is in range, and none may be a date without dashes (20240501)."""
    if ds.min() < MIN_DS_MS or ds.max() > MAX_DS_MS:
        return False
    return not any(is_date_number(value) for value in ds[(ds >= 0) & (ds < _LIKELY_DS_MS)].tolist())


def _epoch_ms(ds: int | dt.datetime) -> int:
    if isinstance(ds, int):
        # numpy refuses a number beyond int64; a clipped date is still out of range.
        return min(max(ds, MIN_DS_MS - 1), MAX_DS_MS + 1)
    return ((ds if ds.tzinfo else ds.replace(tzinfo=dt.UTC)) - _EPOCH) // _MILLISECOND


def _whole(document: Any, context: Any) -> Any:
    """Return a document as it is, for the decoder of several observations."""
    return document, context
