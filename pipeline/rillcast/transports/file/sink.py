"""The sink on files: one file for each channel.

A run over a file writes its outputs from the beginning; they replace those of an earlier run when it ends well
(`finish`). Only a run over a topic appends, because it does not see the committed part of the topic again.

Owns: the output files of a run. Does not know: what a record means, or how a file is locked and replaced
(`rillcast.outputs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Final

from rillcast import outputs
from rillcast.errors import DeliveryError, InUseError, OutputError, SettingsError, TransportError
from rillcast.outputs import GrowingFile
from rillcast.transports.base import Channel, Records
from rillcast.transports.file import dead_letter_lines
from rillcast.transports.file.parquet import import_polars

_LINES: Final = ".jsonl"
_PARQUET: Final = ".parquet"
_PENDING_SUFFIX: Final = ".pending.jsonl"
_CONTENTS: Final = {"output.path": ("JSON Lines or Parquet", [_LINES, _PARQUET])}
# Endings that promise another format; an ending of the user's own promises none.
_OTHER_FORMATS: Final = frozenset({
    ".gz", ".bz2", ".xz", ".zst", ".zip", ".csv", ".tsv", ".txt", ".xls", ".xlsx", ".parquet", ".arrow", ".feather",
    ".avro", ".orc", ".msgpack", ".pb", ".npy", ".npz", ".h5", ".db", ".sqlite", ".html", ".xml", ".yaml", ".toml",
})  # fmt: skip


class FileSink:
    """Forecasts and dead letters as JSON Lines (`-` is standard output), or forecasts as Parquet.

    A dead letter is one object, in the form of `rillcast.transports.file.dead_letter_lines`. Parquet is written by
    `finish`, from a `.pending.jsonl` in the same folder, which stays if that fails.

    Raises:
        SettingsError: A file cannot be opened for writing.
        InUseError: Another process writes a file.
    """

    def __init__(self, paths: Mapping[Channel, str], *, append: bool = False) -> None:
        self._paths = dict(paths)
        self._outputs: dict[Channel, GrowingFile] = {}
        self._files: dict[Channel, IO[bytes]] = {}
        for channel, path in self._paths.items():
            working = None
            if _is_parquet(path):
                import_polars()
                working = _pending(path)
            try:
                self._outputs[channel] = GrowingFile(path, append=append, working=working)
            except OSError as error:
                self.close()
                raise SettingsError(f"{channel.value} file {path}: {outputs.reason(error)}") from error
            except InUseError as error:
                self.close()
                raise InUseError(f"{channel.value} file {error}") from error
            self._files[channel] = self._outputs[channel].file

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
            raise TransportError(self._failure(channel, error)) from error

    def largest_record(self, channel: Channel) -> int | None:  # noqa: ARG002  it is the same for all
        """Return None: a file takes records of any size."""
        return None

    def flush(self, timeout_s: float) -> None:  # noqa: ARG002  a disk gives no way to stop waiting
        """Write everything to the disk.

        Raises:
            DeliveryError: A file could not be written.
        """
        for channel, output in self._outputs.items():
            try:
                output.flush()
                if not _is_parquet(self._paths[channel]):
                    output.keep()
            except OSError as error:
                raise DeliveryError(self._failure(channel, error)) from error

    def finish(self, channels: Iterable[Channel] = Channel) -> None:
        """Let the outputs of some channels replace those of an earlier run; Parquet is written now.

        Raises:
            TransportError: A file could not be written; the earlier one is unchanged.
        """
        wanted = set(channels)
        for channel, output in ((channel, output) for channel, output in self._outputs.items() if channel in wanted):
            try:
                if _is_parquet(self._paths[channel]):
                    output.flush()
                    _convert(_pending(self._paths[channel]), Path(self._paths[channel]))
                else:
                    output.finish()
            except OSError as error:
                raise TransportError(self._failure(channel, error)) from error

    def close(self) -> None:
        """Close the files.

        Raises:
            TransportError: The last lines could not be written.
        """
        opened, self._outputs, self._files = self._outputs, {}, {}
        failures: list[TransportError] = []
        for channel, output in opened.items():
            try:
                output.close()
            except OSError as error:
                failures.append(TransportError(self._failure(channel, error)))
        if failures:
            raise failures[0]

    def _failure(self, channel: Channel, error: OSError) -> str:
        path = self._paths[channel]
        where = f"{path} (standard output)" if path == outputs.STANDARD else path
        return f"{channel.value} file {where}: {outputs.reason(error)}"

    def _file(self, channel: Channel) -> IO[bytes]:
        if channel not in self._files:
            raise TransportError(f"file sink has no open file for {channel.value}")
        return self._files[channel]


def check(inputs: outputs.Paths, settings: Mapping[str, str | None]) -> None:
    """Refuse output files that cannot or must not be written, before any is opened.

    Args:
        inputs: The files that the run reads, by setting.
        settings: `output.path`, `dead_letters.path`, `anomalies.path` and `alarms.path`.

    Raises:
        SettingsError: See `rillcast.outputs`.
    """
    written: dict[str, str | Path] = {}
    for name, path in settings.items():
        if path is None:
            continue
        if Path(path).suffix.lower() in _OTHER_FORMATS:
            content, endings = _CONTENTS.get(name, ("JSON Lines", [_LINES]))
            outputs.require_ending(name, path, content, endings)
        written[name] = path
        if path != outputs.STANDARD and not outputs.is_special(Path(path)):
            working = _pending(path) if _is_parquet(path) else outputs.working_file(Path(path))
            written[f"{name}, until the run ends,"] = working
    outputs.check(inputs, written)


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(_PARQUET)


def _pending(path: str) -> Path:
    """Return the file of the lines that become Parquet."""
    return Path(path + _PENDING_SUFFIX)


def _convert(lines: Path, target: Path) -> None:
    """Write `target` from JSON Lines, whole or not at all."""
    pl = import_polars()
    try:
        with outputs.replacing(target) as partial:
            if lines.stat().st_size:
                pl.scan_ndjson(lines, infer_schema_length=None).sink_parquet(partial)
            else:
                pl.DataFrame().write_parquet(partial)
    except OutputError as error:
        raise TransportError(f"forecasts file {error}; the records are in {lines}") from error
    except pl.exceptions.PolarsError as error:
        raise TransportError(
            f"forecasts file {target} could not be written: {error}; the records are in {lines}"
        ) from error
    lines.unlink()
