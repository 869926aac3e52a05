"""`rillcast dlq`: list dead letters, show one, and send them again."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rillcast.cli import flags, topic_reading
from rillcast.codecs.observations.rejections import Reason
from rillcast.errors import SettingsError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.settings import Settings
from rillcast.text import printable
from rillcast.transports.base import Channel, Records

if TYPE_CHECKING:
    from rillcast.publishing.dead_letters import DeadLetter
    from rillcast.transports.base import Polled

EXAMPLES: Final = """\
examples:
  rillcast dlq list --reason not_json --limit 20
  rillcast dlq list --count
  rillcast dlq show 0/17
  rillcast dlq replay --reason too_many_streams --dry-run
  rillcast dlq list --file dead-letters.jsonl --json

The name of a dead letter is its position: PARTITION/OFFSET, in a file 0/LINE (from 0). `replay` writes the original
key, value and headers to the original partition, unchanged. It skips records that were cut, and those of another topic
than `input.topic` (`rillcast rekey` writes such) unless --to says where they go. The topic is `dead_letters.topic`,
unless --file names a file. Exit codes: 0 done, 2 settings, 5 the topic cannot be read or written.
"""
REPLAYED: Final = "rillcast-replayed"
_SHOWN_BYTES: Final = 10_000
_NULL: Final = "null"


class _Found(NamedTuple):
    """A dead letter and its position."""

    place: str
    letter: DeadLetter


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list dead letters, one a line")
    showing = actions.add_parser("show", help="show one dead letter in full")
    replay = actions.add_parser("replay", help="write the original records to the input topic again")
    showing.add_argument("place", metavar="PARTITION/OFFSET", help="position, as `list` prints it")
    listing.add_argument(
        "--count", action="store_true", help="count the dead letters of each reason, instead of a list"
    )
    replay.add_argument(
        "--to",
        metavar="TOPIC",
        help="topic to write to, with partitions by key (default: input.topic, original partitions)",
    )
    replay.add_argument("--dry-run", action="store_true", help="report what would be sent, and send nothing")
    for each in (listing, replay):
        each.add_argument("--reason", action="append", choices=[reason.value for reason in Reason], help="repeatable")
        each.add_argument(
            "--since", type=topic_reading.moment, metavar="TIME", help="earliest time of the original record (RFC 3339)"
        )
        each.add_argument(
            "--until", type=topic_reading.moment, metavar="TIME", help="time of the original record to stop before"
        )
        each.add_argument("--limit", type=int, default=0, help="most dead letters (default: all)")
    for each in (listing, showing, replay):
        each.add_argument("--file", type=flags.path, help="file of dead letters (.jsonl), instead of the topic")
        each.add_argument("--json", action="store_true", help="print JSON")
        flags.add_settings(each)


def run(args: argparse.Namespace) -> int:
    """Do the action, and print its result."""
    settings = flags.load_settings(args)
    logs.configure(settings.log.level, settings.log.format)
    letters = _letters(settings, args.file)
    if args.action == "show":
        return _show(letters, args.place, as_json=args.json)
    chosen = _chosen(letters, args)
    if args.action == "list":
        return _count(chosen, as_json=args.json) if args.count else _list(chosen, as_json=args.json)
    source = settings.input.topic if args.file is None and args.to is None else None
    return _replay(settings, chosen, args.to, source, dry_run=args.dry_run, as_json=args.json)


# Reading.


def _letters(settings: Settings, file: Path | None) -> Iterator[_Found]:
    """Yield every dead letter, in the order of each partition.

    Raises:
        SettingsError: The file's name has no known format.
        TransportError: The topic cannot be read.
    """
    for polled in topic_reading.polls(settings, "dlq", topic=settings.dead_letters.topic, file=file):
        yield from _in_topic(polled) if file is None else _in_file(polled)


def _in_topic(polled: Polled) -> Iterator[_Found]:
    from rillcast.publishing.dead_letters import DeadLetter

    for row in range(len(polled)):
        place = f"{polled.partitions[row]}/{polled.offsets[row]}"
        yield _Found(place, DeadLetter.read(polled.keys[row], polled.values[row], polled.headers(row)))


def _in_file(polled: Polled) -> Iterator[_Found]:
    from rillcast.publishing.dead_letters import DeadLetter
    from rillcast.transports.file import dead_letter_lines

    for row, line in enumerate(polled.values):
        place = f"{polled.partitions[row]}/{polled.offsets[row]}"
        try:
            yield _Found(place, DeadLetter.read(*dead_letter_lines.read(line or b"")))
        except ValueError as error:
            raise SettingsError(f"line {polled.offsets[row]} of the file is {error}") from error


def _chosen(letters: Iterable[_Found], args: argparse.Namespace) -> Iterator[_Found]:
    taken = 0
    for found in letters:
        letter = found.letter
        if args.reason and letter.reason not in args.reason:
            continue
        if (args.since is not None and letter.timestamp_ms < args.since) or (
            args.until is not None and letter.timestamp_ms >= args.until
        ):
            continue
        yield found
        taken += 1
        if taken == args.limit:
            return


# Showing.


def _list(letters: Iterable[_Found], *, as_json: bool) -> int:
    for found in letters:
        letter = found.letter
        if as_json:
            print(to_json(_document(found)))
        else:
            origin = f"{letter.source}[{letter.partition}]@{letter.offset}"
            when = topic_reading.time_text(letter.timestamp_ms)
            line = f"{found.place}  {when}  {letter.reason}  {origin}  {letter.detail}"
            print(printable(line))
    return 0


def _count(letters: Iterable[_Found], *, as_json: bool) -> int:
    counts = Counter(found.letter.reason or "(not a dead letter of Rillcast)" for found in letters)
    if as_json:
        print(to_json(dict(counts.most_common())))
    for reason, count in counts.most_common() if not as_json else ():
        print(f"{count:>9,}  {printable(reason)}")
    return 0


def _show(letters: Iterable[_Found], place: str, *, as_json: bool) -> int:
    found = next((each for each in letters if each.place == place), None)
    if found is None:
        raise SettingsError(f"no dead letter at {place}; `rillcast dlq list` prints their positions")
    document = _document(found)
    if as_json:
        print(to_json(document))
        return 0
    for name, value in document.items():
        if name not in ("headers", "value"):
            print(f"{name:<15} {printable(str(value))}")
    for name, text in document["headers"]:
        print(f"header          {printable(name)}: {_NULL if text is None else text}")
    if found.letter.value is None:
        print(f"value           {_NULL} (a tombstone)")
        return 0
    print(f"value           {len(found.letter.value)} bytes")
    print(document["value"])
    return 0


def _document(found: _Found) -> dict[str, Any]:
    letter = found.letter
    members: dict[str, Any] = {
        "place": found.place,
        "reason": letter.reason,
        "detail": letter.detail,
        "source": letter.source,
        "partition": letter.partition,
        "offset": letter.offset,
        "time": topic_reading.time_text(letter.timestamp_ms),
        "model": letter.model,
        "original_bytes": letter.original_bytes,
        "key": _text(letter.key),
        "headers": [[name, _text(data)] for name, data in letter.headers],
        "value": _text(letter.value),
    }
    return members


def _text(data: bytes | None) -> str | None:
    """Return bytes as text that may be printed, and null as None."""
    return None if data is None else printable(data[:_SHOWN_BYTES])


# Sending again.


def _replay(
    settings: Settings, letters: Iterable[_Found], to: str | None, source: str | None, *, dry_run: bool, as_json: bool
) -> int:
    """Send the originals; only those of `source`, unless that is None: others have to go where they came from."""
    from rillcast.transports.connect import open_topic_sink

    topic = to or settings.input.topic
    left_out = Counter[str]()
    sent = 0
    # Read all before anything is sent: a record that fails again must not be read again.
    found = list(letters)
    sink = None if dry_run else open_topic_sink(settings.kafka, topic)
    try:
        for place, letter in found:
            if not letter.reason or not letter.is_whole:
                left_out["cut" if letter.reason else "not a dead letter of Rillcast"] += 1
                continue
            if source is not None and letter.source != source:
                left_out[f"of {letter.source}: name it with --input.topic, or another topic with --to"] += 1
                continue
            if sink is not None:
                headers = [*letter.headers, (REPLAYED, place.encode())]
                own = letter.partition if to is None and letter.partition >= 0 else None
                sink.publish(Channel.FORECASTS, Records([letter.key], [letter.value], [headers]), partition=own)
            sent += 1
        if sink is not None:
            sink.flush(settings.worker.flush_timeout_s)
    finally:
        if sink is not None:
            sink.close()
    figures = {"sent": 0 if dry_run else sent, "would_send": sent, "left_out": dict(left_out), "topic": topic}
    if as_json:
        print(to_json(figures))
    else:
        print(f"{'would send' if dry_run else 'sent'} {sent:,} records to {topic}")
        for why, count in left_out.items():
            print(f"skipped {count:,}: {why}", file=sys.stderr)
    return 0
