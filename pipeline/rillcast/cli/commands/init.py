"""`rillcast init`: look at a topic or a file, and write the settings that fit it."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rillcast import outputs, settings
from rillcast.cli import flags
from rillcast.errors import SettingsError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.text import printable

if TYPE_CHECKING:
    from rillcast.discovery.profile import Profile
    from rillcast.discovery.proposal import Proposal

EXAMPLES: Final = """\
examples:
  rillcast init --input.topic metrics --kafka.bootstrap-servers HOST:9092
  rillcast init --input.path data.csv
  rillcast init --input.topic metrics --input.fields.y value --out trial.toml
  rillcast init --check

The command reads the newest records of the topic for some seconds, or the first of the file, says what is in them, and
writes the settings that fit: fields, unit of the times, model, aggregation, lateness. Settings that are given as flags
stay as they are. It changes nothing on the brokers: it joins no group, commits nothing and creates no topic. An
existing file is replaced with --force only, and its settings are not read then.

With --check it compares the settings that there are (rillcast.toml, environment, flags) with the topic, and writes
nothing. Passwords are never written: give them to the service as variables or secret files.
Exit codes: 0 done, 2 settings, data, or --check has found an error, 5 the topic cannot be read.
"""
_REGULAR: Final = 0.2
"""Share of exact steps below which a cadence is not shown as a frequency; jitter leaves some of them exact."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--seconds", type=float, default=10.0, help="longest look at a topic (default: 10)")
    parser.add_argument("--records", type=int, default=200_000, help="most records to look at (default: %(default)s)")
    parser.add_argument(
        "--out", type=flags.path, default=settings.DEFAULT_FILE, help="settings file to write (default: %(default)s)"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the settings that there are with their topics; write nothing"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing settings file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Look, write and print."""
    from rillcast.discovery.proposal import look

    if args.seconds <= 0 or args.records < 1:
        raise SettingsError(f"--seconds {args.seconds:g}, --records {args.records}: expected more than 0")
    if args.check:
        return _check(args)
    given = flags.load_settings(args, default_file=None)
    logs.configure(given.log.level, given.log.format)
    outputs.check({"--input.path": given.input.path}, {"--out": args.out})
    if args.out.exists() and not args.force:
        raise SettingsError(f"--out {args.out} exists; use --force to replace it, or --check to check it")
    proposal = look(given, seconds=args.seconds, records=args.records)
    with outputs.replacing(args.out) as partial:
        partial.write_text(_text(proposal), encoding="utf-8")
    if args.json:
        print(to_json(_document(proposal, args.out)))
    else:
        for line in _lines(proposal, args.out):
            print(line)
    return 0


def _check(args: argparse.Namespace) -> int:
    """Compare, print the findings, and return the exit code."""
    from rillcast.discovery.check import check

    given = flags.load_settings(args)
    logs.configure(given.log.level, given.log.format)
    findings = check(flags.with_local_model(given), seconds=args.seconds, records=args.records)
    errors = sum(each.level == "error" for each in findings)
    if args.json:
        print(to_json({"findings": [asdict(each) for each in findings], "errors": errors}))
    else:
        for each in findings:
            print(f"{each.level:<8} {printable(each.about)}: {printable(each.text)}")
    return SettingsError.exit_code if errors else 0


def _text(proposal: Proposal) -> str:
    from rillcast.discovery.settings_file import write

    today = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    head = [
        f"Written by `rillcast init` on {today}, by {len(proposal.sample):,} records of {proposal.sample.source}.",
        "docs/settings.md has all settings. Start the service: rillcast run",
    ]
    return write(proposal.choice.values, proposal.choice.why, head)


def _document(proposal: Proposal, out: Path) -> dict[str, Any]:
    return {
        "source": proposal.sample.source,
        "records": len(proposal.sample),
        "partitions": proposal.sample.partitions,
        "retained": proposal.sample.retained,
        "refused": dict(proposal.refused),
        "profile": asdict(proposal.profile),
        "settings": proposal.choice.values,
        "why": proposal.choice.why,
        "notes": proposal.choice.notes,
        "file": str(out),
        "command": _command(out),
    }


def _lines(proposal: Proposal, out: Path) -> Iterator[str]:
    for name, text in _findings(proposal):
        yield f"  {name:<12} {printable(text)}"
    yield ""
    for table in proposal.choice.values.get("models", []):
        takes = [f"{name} {table[name]}" for name in ("match", "only") if name in table]
        yield f"  models.{table['name']}: {printable(', '.join([table['model'], *takes]))}"
        if why := proposal.choice.why.get(f"models.{table['name']}"):
            yield f"    {printable(why)}"
    for path, value in proposal.choice.values.items():
        why = proposal.choice.why.get(path)
        if why is not None:
            yield f"  {path} = {printable(str(value))}: {printable(why)}"
    for note in proposal.choice.notes:
        yield f"  note: {printable(note)}"
    yield ""
    yield f"wrote {out}; start the service: {_command(out)}"


def _command(out: Path) -> str:
    return "rillcast run" if out == settings.DEFAULT_FILE else f"rillcast run --config {out}"


def _findings(proposal: Proposal) -> Iterator[tuple[str, str]]:
    from rillcast.discovery.choice import duration

    sample, found = proposal.sample, proposal.profile
    whole = "" if sample.retained is None else f" of {sample.retained:,}"
    yield "records", f"{len(sample):,}{whole} of {sample.source}, {sample.partitions} partitions"
    if proposal.refused:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in proposal.refused.most_common())
        yield "", f"{proposal.refused.total():,} would become dead letters ({reasons}), the first: {proposal.example}"
    yield "streams", f"{found.streams:,}; {_span(found.streams_per_partition)} in a partition"
    if found.split:
        yield (
            "",
            (
                f"{found.split:,} have events in several partitions, such as {found.split_example!r}: key the topic by "
                f"stream, see `rillcast rekey`"
            ),
        )
    yield "cadence", _cadence(found)
    yield "times", f"{_time(found.first_ms)} to {_time(found.last_ms)}"
    yield (
        "order",
        (
            f"{found.late:.2%} of the events are late by up to {duration(found.lateness_ms)}; within a partition "
            f"events lie up to {duration(found.disorder_ms)} behind the newest"
        ),
    )
    yield "repeats", f"{found.repeated:.2%} of the events have the stream and time of another"
    kind = "whole numbers" if found.whole else "numbers with fractions"
    values = f"{kind}; {found.zeros:.1%} are 0, {found.missing:.1%} missing"
    yield "values", "none: the events are counted" if proposal.layout.chosen.y is None else values
    if found.events_per_s and proposal.settings.input.path is None:
        yield "rate", f"{found.events_per_s:,.1f} events/s by the records' timestamps"


def _cadence(found: Profile) -> str:
    from rillcast.discovery.choice import duration

    if found.frequency is None:
        return "unknown: no stream has two events"
    if found.regular < _REGULAR:
        return f"irregular, {duration(found.step_ms)} apart in the middle"
    shares = ", ".join(f"{freq} {share:.0%}" for freq, share in list(found.frequencies.items())[:5])
    return f"{found.frequency} ({found.regular:.0%} of the steps are exact); streams: {shares}"


def _span(numbers: tuple[int, int]) -> str:
    least, most = numbers
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _time(ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(ms / 1000, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
