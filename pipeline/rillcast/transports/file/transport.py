"""Source and sink on files: the embedded transport, with no broker.

A file is one partition, number 0; the offset of a record is its number, counted from 0. Files commit nothing that
lasts: `committed` is always None, a run over a file starts at its beginning, and `commit` only remembers. Outputs
are therefore written anew by each run, unless the input is a topic, whose committed part does not come again.

Owns: pacing, the position in the file, and the output files. Does not know: the input formats
(`rillcast.transports.file.readers`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import numpy as np

from rillcast.errors import DeliveryError, SettingsError, TransportError
from rillcast.transports.base import Assignment, AssignmentListener, Channel, Polled, Records
from rillcast.transports.file import dead_letter_lines
from rillcast.transports.file.columns import FileColumns
from rillcast.transports.file.readers import Reader, import_polars, open_reader

PARTITION: Final = 0
_SKIP_RECORDS: Final = 10_000
_PENDING_SUFFIX: Final = ".pending.jsonl"


class Pacer:
    """How many records are due at `rate` records a second since the first question; 0 = no limit."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._started: float | None = None
        self._passed = 0

    def due(self, most: int) -> int:
        """Return how many records may pass now, at most `most`."""
        if not self._rate:
            return most
        return max(0, min(most, int(self._elapsed() * self._rate) + 1 - self._passed))

    def wait_s(self) -> float:
        """Return the seconds until the next record is due."""
        if not self._rate:
            return 0.0
        return max(0.0, self._passed / self._rate - self._elapsed())

    def passed(self, count: int) -> None:
        """Count records that have passed."""
        self._passed += count

    def _elapsed(self) -> float:
        now = self._clock()
        if self._started is None:
            self._started = now
        return now - self._started


class FileSource:
    """Observations from a file or standard input. See `rillcast.transports.base.Source` for the contract."""

    def __init__(
        self, path: str, file_format: str = "auto", rate: float = 0.0, columns: FileColumns | None = None
    ) -> None:
        """Remember what to read; `columns` names those of CSV and Parquet."""
        self._path = path
        self._columns = columns
        self._format = file_format
        self._pacer = Pacer(rate)
        self._reader: Reader | None = None
        self._listener: AssignmentListener | None = None
        self._announced = False
        self._held = False
        self._position = 0
        self._committed: dict[int, int] = {}

    @property
    def name(self) -> str:
        """The path."""
        return "standard input" if self._path == "-" else self._path

    @property
    def exhausted(self) -> bool:
        """Whether every record has been handed out."""
        return self._announced and not self._held and self._reader is not None and self._reader.ended

    @property
    def committed(self) -> Mapping[int, int]:
        """What `commit` was told, for this run only."""
        return self._committed

    def open(self, listener: AssignmentListener) -> None:
        """Open the file.

        Raises:
            SettingsError: its format is unknown, or cannot be read here.
            DataError: it is not there, or lacks a column.
        """
        self._listener = listener
        self._reader = open_reader(self._path, self._format, self._columns)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return the next records; waits only for a pipe or for the pace.

        Raises:
            TransportError: the file broke while being read.
        """
        reader = self._live()
        deadline = time.monotonic() + timeout_s
        if not self._announced:
            self._announce(reader)
        if self._held:
            time.sleep(max(0.0, deadline - time.monotonic()))
            return Polled.empty()
        if not (count := self._pacer.due(max_records)):
            time.sleep(max(0.0, min(self._pacer.wait_s(), deadline - time.monotonic())))
            count = self._pacer.due(max_records)
        if not count or reader.ended:
            return Polled.empty()
        values = reader.read(count, max(0.0, deadline - time.monotonic()))
        self._pacer.passed(len(values))
        offsets = np.arange(self._position, self._position + len(values), dtype=np.int64)
        self._position += len(values)
        return Polled(
            partitions=np.full(len(values), PARTITION, dtype=np.int64),
            offsets=offsets,
            # A replayed record comes into being when its turn comes; its age is then what a live one's would be.
            timestamps_ms=np.full(len(values), time.time_ns() // 1_000_000, dtype=np.int64),
            keys=[None] * len(values),
            values=values,
        )

    def pause(self, partitions: Sequence[int]) -> None:
        """Hand out nothing until `resume_from`."""
        if PARTITION in partitions and self._announced:
            self._held = True

    def resume_from(self, partition: int, position: int) -> None:
        """Hand out records from number `position` on; going back reads the file again from its beginning.

        Raises:
            TransportError: the input is a pipe, and `position` lies before what was read of it.
        """
        reader = self._live()
        if partition != PARTITION or not self._announced:
            return
        self._held = False
        if position < self._position:
            if self._path == "-":
                raise TransportError(
                    f"standard input cannot go back to record {position}: {self._position} were read and are gone"
                )
            reader.close()
            reader = self._reader = open_reader(self._path, self._format, self._columns)
            self._position = 0
        self._skip(reader, position)

    def assignments(self) -> Sequence[Assignment]:
        """Return the one partition, which has never committed."""
        return [self._assignment(self._live())] if self._announced else []

    def group(self) -> object:
        """Return None: a file has no group."""
        return None

    # Nothing is waited for here, so there is nothing to give up in time.
    def commit(self, positions: Mapping[int, int], timeout_s: float | None = None) -> None:  # noqa: ARG002
        """Remember `positions` until the process ends: a file has no place to keep them."""
        self._committed.update(positions)

    def positions(self) -> Mapping[int, int]:
        """Return the number of the record that is read next."""
        return {PARTITION: self._position} if self._announced and not self._held else {}

    def lag(self) -> Mapping[int, int]:
        """Return the records still to read, where the file says how many it has; nothing where it does not."""
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

    def _announce(self, reader: Reader) -> None:
        assert self._listener is not None  # set by open(), which also made the reader
        self._announced = True
        start = self._listener.on_assigned([self._assignment(reader)])[PARTITION]
        self._held = start is None
        if start is not None:
            self._skip(reader, start)

    def _assignment(self, reader: Reader) -> Assignment:
        # Only Parquet knows its end; of the others nothing is known to be there yet, which is the beginning.
        return Assignment(PARTITION, committed=None, beginning=0, end=reader.total or 0)

    def _skip(self, reader: Reader, position: int) -> None:
        while self._position < position and not reader.ended:
            self._position += len(reader.read(min(_SKIP_RECORDS, position - self._position), timeout_s=1.0))


class FileSink:
    """Forecasts and dead letters as JSON Lines (`-` is standard output), or forecasts as Parquet.

    A dead letter is one object, in the form of `rillcast.transports.file.dead_letter_lines`. Parquet is written when
    the
    sink closes, from a `.pending.jsonl` beside it, which stays if that fails.

    Raises:
        SettingsError: a file cannot be opened for writing.
    """

    def __init__(self, paths: Mapping[Channel, str], *, append: bool = False) -> None:
        self._paths = dict(paths)
        self._parquet: dict[Channel, Path] = {}
        self._files: dict[Channel, IO[bytes]] = {}
        for channel, path in self._paths.items():
            if path.lower().endswith(".parquet"):
                import_polars()
                self._parquet[channel] = Path(path)
                path = path + _PENDING_SUFFIX
            try:
                self._files[channel] = _open_output(path, append=append)
            except OSError as error:
                self.close()
                raise SettingsError(f"{channel.value} file {path}: {error.strerror or error}") from error

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:  # noqa: ARG002  a file has none
        """Write one line per record.

        Raises:
            TransportError: the file cannot be written (disk full, reader of the pipe gone).
        """
        if not len(records):
            return
        if channel is Channel.DEAD_LETTERS:
            headers = records.headers if records.headers is not None else [()] * len(records)
            lines = [dead_letter_lines.write(*row) for row in zip(records.keys, records.values, headers, strict=True)]
        else:
            lines = [b"null" if value is None else value for value in records.values]
        try:
            self._file(channel).write(b"\n".join(lines) + b"\n")
        except OSError as error:
            raise TransportError(f"{channel.value} file {self._paths[channel]}: {error.strerror or error}") from error

    def flush(self, timeout_s: float) -> None:  # noqa: ARG002  a disk gives no way to stop waiting
        """Bring everything to the disk.

        Raises:
            DeliveryError: a file could not be written.
        """
        for channel in self._files:
            try:
                file = self._file(channel)
                file.flush()
                if file.seekable():  # a pipe or a terminal has nothing to sync
                    os.fsync(file.fileno())
            except OSError as error:
                raise DeliveryError(
                    f"{channel.value} file {self._paths[channel]}: {error.strerror or error}"
                ) from error

    def close(self) -> None:
        """Close the files; Parquet is written now.

        Raises:
            TransportError: it could not be; the lines are kept beside it.
        """
        files, self._files = self._files, {}
        parquet, self._parquet = self._parquet, {}
        failures: list[TransportError] = []
        for channel, file in files.items():
            try:
                file.close()
                if channel in parquet:
                    _convert(Path(f"{parquet[channel]}{_PENDING_SUFFIX}"), parquet[channel])
            except OSError as error:
                failures.append(
                    TransportError(f"{channel.value} file {self._paths[channel]}: {error.strerror or error}")
                )
            except TransportError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _file(self, channel: Channel) -> IO[bytes]:
        if channel not in self._files:
            raise TransportError(f"file sink has no open file for {channel.value}")
        return self._files[channel]


def _open_output(path: str, *, append: bool) -> IO[bytes]:
    if path == "-":
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb")  # a duplicate: closing it leaves standard output open
    return Path(path).open("ab" if append else "wb")


def _convert(lines: Path, target: Path) -> None:
    """Write `target` from JSON Lines as a whole or not at all."""
    pl = import_polars()
    unfinished = target.with_name(target.name + ".tmp")
    try:
        if lines.stat().st_size:
            pl.scan_ndjson(lines, infer_schema_length=None).sink_parquet(unfinished)
        else:
            pl.DataFrame().write_parquet(unfinished)
        unfinished.replace(target)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TransportError(
            f"forecasts file {target} could not be written: {error}; the records are in {lines}"
        ) from error
    lines.unlink()
