"""The sink on files: one file for each channel.

Each run writes its outputs from the beginning. Only a run over a topic appends, because it does not see the committed
part of the topic again.

Owns: the output files. Does not know: what a record means.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from rillcast.errors import DeliveryError, SettingsError, TransportError
from rillcast.transports.base import Channel, Records
from rillcast.transports.file import dead_letter_lines
from rillcast.transports.file.readers import import_polars

_PENDING_SUFFIX: Final = ".pending.jsonl"


class FileSink:
    """Forecasts and dead letters as JSON Lines (`-` is standard output), or forecasts as Parquet.

    A dead letter is one object, in the form of `rillcast.transports.file.dead_letter_lines`. Parquet is written when
    the sink closes, from a `.pending.jsonl` in the same folder, which stays if that fails.

    Raises:
        SettingsError: A file cannot be opened for writing.
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
            TransportError: The file cannot be written (disk full, reader of the pipe closed).
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
        """Write everything to the disk.

        Raises:
            DeliveryError: A file could not be written.
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
            TransportError: It could not be written; the lines are kept in the same folder.
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
    """Write `target` from JSON Lines, whole or not at all."""
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
