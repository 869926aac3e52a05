"""`rillcast replay`: send a data set to a topic."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rillcast.cli import flags
from rillcast.cli.signals import raise_if_interrupted
from rillcast.errors import SettingsError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.reading.refusals import RefusedValueError
from rillcast.reading.values import read_id
from rillcast.settings import Settings
from rillcast.settings.input import TOPIC_FORMATS
from rillcast.transports.base import Assignment, Channel, Records

if TYPE_CHECKING:
    from rillcast.codecs.observations.decoder import ObservationDecoder
    from rillcast.transports.base import Polled

EXAMPLES: Final = """\
examples:
  rillcast replay data.csv --topic observations --rate 500
  rillcast replay data.parquet --topic observations --kafka.bootstrap-servers localhost:9092 --json
"""
_CHUNK: Final = 2_000


class _Keyed(msgspec.Struct):
    unique_id: Any


class _FromTheStart:
    """Reads every partition of a file from its beginning."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int]:
        return {assignment.partition: assignment.beginning for assignment in assignments}

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Do nothing; the partition of a file never moves."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Do nothing; the partition of a file never moves."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "data", type=flags.path_text, help="file with unique_id, ds, y (.csv, .jsonl or .parquet); - is standard input"
    )
    parser.add_argument("--topic", help="topic to write to (default: the setting input.topic)")
    parser.add_argument("--rate", type=float, default=0.0, help="events per second (default: no limit)")
    parser.add_argument(
        "--covariates-of",
        type=flags.path,
        metavar="MODEL",
        help="bundle whose covariates are sent too, from columns of the file (.csv, .parquet)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    flags.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Send every record with its stream id as the key; one without an id is sent without a key, unchanged."""
    from rillcast.bundle.bundle import Bundle
    from rillcast.transports.connect import open_source, open_topic_sink

    settings = flags.load_settings(args)
    if args.rate < 0:
        raise SettingsError(f"--rate {args.rate}: expected at least 0")
    logs.configure(settings.log.level, settings.log.format)
    settings = settings.model_copy(
        update={
            "input": settings.input.model_copy(update={"path": args.data, "rate": args.rate}),
            "output": settings.output.model_copy(update={"path": None, "topic": args.topic or settings.input.topic}),
        }
    )
    covariates = Bundle.load(args.covariates_of).metadata.covariates if args.covariates_of is not None else ()
    source, sink = open_source(settings, covariates), open_topic_sink(settings.kafka, settings.output.topic)
    decoder = _decoder(settings)
    started, sent, refused, example = time.perf_counter(), 0, 0, ""
    try:
        source.open(_FromTheStart())
        while not source.exhausted:
            polled = source.poll(_CHUNK, settings.worker.poll_timeout_s)
            raise_if_interrupted()
            values = [value or b"" for value in polled.values]
            sink.publish(Channel.FORECASTS, Records(_keys(decoder, polled), values))
            sent += len(values)
            refused += len(polled.faults)
            for row, fault in sorted(polled.faults.items())[:1]:
                example = example or f"{polled.place(row)}: {fault.detail}"
        sink.flush(settings.worker.flush_timeout_s)
    finally:
        source.close()
        sink.close()
    seconds = time.perf_counter() - started
    figures = {
        "events": sent,
        "seconds": seconds,
        "events_per_second": sent / seconds,
        "topic": settings.output.topic,
        "unreadable": refused,
    }
    if refused:
        print(
            f"rillcast: warning: {refused:,} rows of {args.data} cannot be read and were sent as they are, the first: "
            f"{example}",
            file=sys.stderr,
        )
    if args.json:
        print(to_json(figures))
    else:
        print(f"sent {sent:,} events to {settings.output.topic} in {seconds:.1f} s ({sent / seconds:,.0f} events/s)")
    return 0


def _decoder(settings: Settings) -> ObservationDecoder | None:
    """Return the decoder of the file's records, which refuses times in another unit; None = they are in an envelope."""
    from rillcast.codecs.connect import open_decoder

    given = settings.input
    return open_decoder(settings, None) if given.envelope == "none" and given.format not in TOPIC_FORMATS else None


def _keys(decoder: ObservationDecoder | None, polled: Polled) -> list[bytes | None]:
    """Return the key of each record: its stream's id, or what the ids of its streams have in common."""
    found: list[bytes | None] = [None] * len(polled)
    if decoder is not None:
        events, _ = decoder.decode(polled)
        for row, key in zip(events.rows.tolist(), events.keys or events.unique_ids, strict=True):
            found[row] = found[row] or key.encode()
    return [_key(value or b"") if key is None else key for key, value in zip(found, polled.values, strict=True)]


def _key(value: bytes) -> bytes | None:
    """Return the id of a record of which nothing else can be read, if it has one."""
    try:
        return read_id(msgspec.json.decode(value, type=_Keyed).unique_id).encode()
    except (msgspec.MsgspecError, UnicodeError, RefusedValueError):
        return None  # a replay sends all records of the file, bad ones too
