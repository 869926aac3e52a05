"""The source on a file: the embedded transport, without a broker.

A file is one partition, number 0; the offset of a record is its number, counted from 0, in the order in which the file
is read (`rillcast.transports.file.interleaved`). A file keeps no positions:
`committed` is always None, a run over a file starts at its beginning, and `commit` only remembers.

Owns: the position in the file, and pausing. Does not know: the input formats (`rillcast.transports.file.readers`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from rillcast.errors import TransportError
from rillcast.reading.files import TextForm
from rillcast.transports.base import Assignment, AssignmentListener, Polled
from rillcast.transports.file.batch import Batch
from rillcast.transports.file.columns import FileColumns
from rillcast.transports.file.interleaved import InterleavedReader
from rillcast.transports.file.pacer import Pacer
from rillcast.transports.file.readers import Reader, open_reader

PARTITION: Final = 0
_SKIP_RECORDS: Final = 10_000


class FileSource:
    """Observations from a file or standard input. See `rillcast.transports.base.Source` for the contract."""

    def __init__(
        self,
        path: str,
        file_format: str = "auto",
        rate: float = 0.0,
        columns: FileColumns | None = None,
        form: TextForm | None = None,
        streams: Callable[[Polled], Sequence[str | None]] | None = None,
    ) -> None:
        """Remember the arguments.

        Args:
            path: File to read; `-` is standard input.
            file_format: Format of the file, or `auto` to go by its name.
            rate: Records a second; 0 = no limit.
            columns: Columns of CSV and Parquet.
            form: How a text file is written.
            streams: Returns the streams of records, to take them in turns; None = as they stand.
        """
        self._path = path
        self._columns, self._form = columns, form
        self._streams = None if path == "-" or rate else streams  # a pipe or a pace hands records out as they come
        self._format = file_format
        self._pacer = Pacer(rate)
        self._reader: Reader | None = None
        self._listener: AssignmentListener | None = None
        self._announced = False
        self._paused = False
        self._position = 0
        self._committed: dict[int, int] = {}
        self.on_poll: Callable[[int, float | None], None] | None = None
        """Called after each poll with the records so far, and their share of the file or None."""

    @property
    def name(self) -> str:
        """Path of the file, for messages."""
        return "standard input" if self._path == "-" else self._path

    @property
    def exhausted(self) -> bool:
        """Whether every record has been handed out."""
        return self._announced and not self._paused and self._reader is not None and self._reader.ended

    @property
    def committed(self) -> Mapping[int, int]:
        """Positions that `commit` received, in this run only."""
        return self._committed

    def open(self, listener: AssignmentListener) -> None:
        """Open the file.

        Raises:
            SettingsError: Its format is unknown, or its reader is not installed.
            DataError: The file does not exist, or lacks a column.
        """
        self._listener = listener
        self._reader = self._opened()

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return the next records; only a pipe or the rate makes it wait.

        Raises:
            TransportError: The file could not be read to its end.
        """
        reader = self._live()
        deadline = time.monotonic() + timeout_s
        if not self._announced:
            self._announce(reader)
        if self._paused:
            time.sleep(max(0.0, deadline - time.monotonic()))
            return Polled.empty()
        if not (count := self._pacer.due(max_records)):
            time.sleep(max(0.0, min(self._pacer.wait_s(), deadline - time.monotonic())))
            count = self._pacer.due(max_records)
        if not count or reader.ended:
            return Polled.empty()
        values, places, faults, rows, left_out = reader.read(count, max(0.0, deadline - time.monotonic()))
        self._pacer.passed(len(values))
        first = self._position
        offsets = np.arange(first, first + len(values), dtype=np.int64)
        self._position += len(values)
        if self.on_poll is not None:
            self.on_poll(self._position, reader.share)
        return Polled(
            partitions=np.full(len(values), PARTITION, dtype=np.int64),
            offsets=offsets,
            # A replayed record is created when it is due; its age is then that of a live record.
            timestamps_ms=np.full(len(values), time.time_ns() // 1_000_000, dtype=np.int64),
            keys=[None] * len(values),
            values=values,
            place=lambda index: reader.place.format(
                row=(first + index if rows is None else rows[index]) + 1, line=places[index]
            ),
            faults=faults,
            left_out=left_out,
        )

    def pause(self, partitions: Sequence[int]) -> None:
        """Hand out nothing until `resume_from`."""
        if PARTITION in partitions and self._announced:
            self._paused = True

    def resume_from(self, partition: int, position: int) -> None:
        """Hand out records from number `position` on; an earlier position reads the file again from its beginning.

        Raises:
            TransportError: The input is a pipe, and `position` lies before the part that was read.
        """
        reader = self._live()
        if partition != PARTITION or not self._announced:
            return
        self._paused = False
        if position < self._position:
            if self._path == "-":
                raise TransportError(
                    f"standard input cannot be read again from record {position}: {self._position} records were read; "
                    f"use a file"
                )
            reader.close()
            reader = self._reader = self._opened()
            self._position = 0
        self._skip(reader, position)

    def assignments(self) -> Sequence[Assignment]:
        """Return the one partition, which has never committed."""
        return [self._assignment(self._live())] if self._announced else []

    def group(self) -> object:
        """Return None: a file has no group."""
        return None

    def commit(self, positions: Mapping[int, int], timeout_s: float | None = None) -> None:  # noqa: ARG002  a file takes none
        """Remember `positions` until the process ends: a file has no place to keep them."""
        self._committed.update(positions)

    def positions(self) -> Mapping[int, int]:
        """Return the number of the record that is read next."""
        return {PARTITION: self._position} if self._announced and not self._paused else {}

    def lag(self) -> Mapping[int, int]:
        """Return the number of records still to read if the file says how many it has, else nothing."""
        reader = self._live()
        if reader.ended:
            return {PARTITION: 0}
        return {} if reader.total is None else {PARTITION: reader.total - self._position}

    def close(self) -> None:
        """Close the file."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _live(self) -> Reader:
        if self._reader is None:
            raise TransportError(f"file source {self.name} is not open")
        return self._reader

    def _opened(self) -> Reader:
        reader = open_reader(self._path, self._format, self._columns, self._form)
        return reader if self._streams is None else InterleavedReader(reader, partial(_streams_of, self._streams))

    def _announce(self, reader: Reader) -> None:
        assert self._listener is not None  # set by open(), which also made the reader
        self._announced = True
        start = self._listener.on_assigned([self._assignment(reader)])[PARTITION]
        self._paused = start is None
        if start is not None:
            self._skip(reader, start)

    def _assignment(self, reader: Reader) -> Assignment:
        # Only Parquet knows its end; the others report the beginning as their end.
        return Assignment(PARTITION, committed=None, beginning=0, end=reader.total or 0)

    def _skip(self, reader: Reader, position: int) -> None:
        while self._position < position and not reader.ended:
            self._position += len(reader.read(min(_SKIP_RECORDS, position - self._position), timeout_s=1.0).values)


def _streams_of(streams: Callable[[Polled], Sequence[str | None]], batch: Batch) -> list[str | None]:
    """Return the streams of a batch, a part at a time: a record that has to be read with care slows down its part."""
    found: list[str | None] = []
    for first in range(0, len(batch.values), _SKIP_RECORDS):
        values = batch.values[first : first + _SKIP_RECORDS]
        unknown = np.full(len(values), -1, np.int64)
        faults = {at - first: fault for at, fault in batch.faults.items() if first <= at < first + len(values)}
        offsets = np.arange(first, first + len(values))
        found += streams(Polled(np.zeros_like(offsets), offsets, unknown, [None] * len(values), values, faults=faults))
    return found
