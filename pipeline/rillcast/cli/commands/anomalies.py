"""`rillcast anomalies`: list observations that the forecasts did not expect."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rillcast.cli import flags, topic_reading
from rillcast.errors import DataError, SettingsError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.settings import Settings
from rillcast.text import printable

if TYPE_CHECKING:
    from rillcast.publishing.anomalies import Anomaly

EXAMPLES: Final = """\
examples:
  rillcast anomalies
  rillcast anomalies --follow --tail-probability 0.001
  rillcast anomalies --stream web-17/cpu --since 2024-05-01 --json
  rillcast anomalies --count
  rillcast anomalies --file forecasts.jsonl
  rillcast anomalies --score labels.json --file alarms.jsonl --data history.csv.gz

The command reads `anomalies.topic` if it is set, else the forecasts in `output.topic`, which lack the observation
itself. It lists observations with a tail probability below `anomalies.tail_probability`, and streams that fell silent,
each with the period that failed to come. Without --follow it reads all records and ends; with --follow it reads new
records until Ctrl-C. It counts unreadable records and reports them at the end.

--score reads the records of alarms instead (`alarms.topic`, or --file), and compares them with the windows of a file
in the form of the Numenta Anomaly Benchmark: {"STREAM": [["FIRST", "LAST"], ...]}. --data has the observations of these
streams, whose times it needs. Exit codes: 0 done, 2 settings, 5 the topic cannot be read.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--file", type=flags.path, help="file of anomalies or forecasts (.jsonl), instead of a topic")
    where.add_argument("--topic", help="topic of anomalies or forecasts, instead of that of the settings")
    parser.add_argument("--follow", action="store_true", help="read new records until Ctrl-C")
    parser.add_argument(
        "--tail-probability",
        type=float,
        metavar="P",
        help="probability below which an observation is listed (default: that of the settings)",
    )
    parser.add_argument("--stream", action="append", metavar="ID", help="only this stream; repeatable")
    parser.add_argument("--since", type=topic_reading.moment, metavar="TIME", help="earliest event time (RFC 3339)")
    parser.add_argument(
        "--until", type=topic_reading.moment, metavar="TIME", help="event time to stop before (RFC 3339)"
    )
    parser.add_argument("--limit", type=int, default=0, help="most observations to list (default: all)")
    parser.add_argument("--count", action="store_true", help="count the observations of each stream, instead of a list")
    parser.add_argument("--score", type=flags.path, metavar="LABELS", help="score alarms by labelled windows (.json)")
    parser.add_argument("--data", type=flags.path, nargs="+", help="tables of the observations, for --score")
    parser.add_argument("--json", action="store_true", help="print JSON")
    flags.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """List or count."""
    settings = flags.load_settings(args)
    logs.configure(settings.log.level, settings.log.format)
    if (args.score is None) != (args.data is None):
        raise SettingsError("--score and --data need each other: the labelled windows, and the times of the streams")
    if args.score is not None:
        if args.follow or args.count:
            raise SettingsError("--score needs records with an end, and lists nothing: leave out --follow and --count")
        return _score(settings, args)
    limit = settings.anomalies.tail_probability if args.tail_probability is None else args.tail_probability
    if not 0 < limit <= 1:
        raise SettingsError(f"--tail-probability {limit:g}: expected more than 0 and at most 1")
    if args.follow and (args.file is not None or args.count):
        raise SettingsError("--follow needs a topic and no --count: a file and a count have an end")
    found = _chosen(_records(settings, args), args, limit)
    if args.count:
        _count(found, as_json=args.json)
    else:
        for anomaly in found:
            print(to_json(_document(anomaly)) if args.json else _line(anomaly), flush=args.follow)
    return 0


def _score(settings: Settings, args: argparse.Namespace) -> int:
    """Print how alarms meet labelled windows."""
    from dataclasses import asdict

    from rillcast.publishing.alarms import Alarm
    from rillcast_training.evaluate.alarm_scores import score_alarms
    from rillcast_training.evaluate.labelled import labelled

    topic = args.topic or settings.alarms.topic
    if topic is None and args.file is None:
        raise SettingsError("alarms.topic is not set; give --topic or --file")
    alarms, unreadable = [], 0
    for polled in topic_reading.polls(settings, "alarms", topic=topic or settings.output.topic, file=args.file):
        for value in polled.values:
            try:
                alarms.append(Alarm.read(value or b""))
            except DataError:
                unreadable += 1
    if unreadable:
        print(f"{unreadable:,} records are no alarms", file=sys.stderr)
    scores = score_alarms(labelled(args.score, args.data, alarms))
    print(to_json(asdict(scores)) if args.json else scores.table())
    return 0


def _records(settings: Settings, args: argparse.Namespace) -> Iterator[Anomaly]:
    from rillcast.publishing.anomalies import Anomaly

    topic = args.topic or settings.anomalies.topic or settings.output.topic
    unreadable = 0
    try:
        for polled in topic_reading.polls(settings, "anomalies", topic=topic, file=args.file, follow=args.follow):
            for key, value in zip(polled.keys, polled.values, strict=True):
                try:
                    yield Anomaly.read(value or b"", key)
                except DataError:
                    unreadable += 1
    finally:
        if unreadable:
            print(f"{unreadable:,} records are neither anomalies nor forecasts", file=sys.stderr)


def _chosen(anomalies: Iterator[Anomaly], args: argparse.Namespace, limit: float) -> Iterator[Anomaly]:
    from rillcast.publishing.anomalies import SILENCE

    taken = 0
    for each in anomalies:
        if each.status != SILENCE and not each.tail_probability < limit:  # NaN, if unknown, is not below
            continue
        if args.stream and each.unique_id not in args.stream:
            continue
        if (args.since is not None and each.ds < args.since) or (args.until is not None and each.ds >= args.until):
            continue
        yield each
        taken += 1
        if taken == args.limit:
            return


def _line(anomaly: Anomaly) -> str:
    if anomaly.tail_probability != anomaly.tail_probability:
        return f"{_time(anomaly.ds)}  silence     {printable(anomaly.unique_id)}"
    observed = "" if anomaly.y != anomaly.y else f"  y {anomaly.y:g}"
    stream = printable(anomaly.unique_id)
    return f"{_time(anomaly.ds)}  p {anomaly.tail_probability:<8.3g}  {stream}{observed}"


def _document(anomaly: Anomaly) -> dict[str, object]:
    return {
        "unique_id": anomaly.unique_id,
        "ds": _time(anomaly.ds),
        "y": _known(anomaly.y),
        "anomaly": _known(anomaly.anomaly),
        "tail_probability": _known(anomaly.tail_probability),
        "status": anomaly.status,
        "model": anomaly.model,
        "source": {"partition": anomaly.partition, "offset": anomaly.offset},
    }


def _known(number: float) -> float | None:
    return None if number != number else number


def _count(anomalies: Iterator[Anomaly], *, as_json: bool) -> None:
    counts = Counter(each.unique_id for each in anomalies)
    if as_json:
        print(to_json(dict(counts.most_common())))
        return
    for unique_id, count in counts.most_common():
        print(f"{count:>9,}  {printable(unique_id)}")


def _time(ds: int) -> str:
    """Return an event's time, which may be before the epoch."""
    found = datetime.fromtimestamp(ds / 1000, UTC)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
