"""The records of the input against the settings that read them: dead letters, streams, cadence, lateness.

Owns: these comparisons and their words; with tables of models those of each table, and what no table takes. Does not
know: topics, rights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from rillcast.bundle.frequency import parse
from rillcast.codecs.connect import open_decoder
from rillcast.discovery import sample as samples
from rillcast.discovery.choice import duration
from rillcast.discovery.findings import Finding, Level
from rillcast.discovery.profile import Profile, profile, repeated_periods
from rillcast.discovery.tables import ServedTable
from rillcast.errors import DataError, RillcastError
from rillcast.events import EventBatch
from rillcast.settings import ModelTable, Settings

_MOST_REFUSED: Final = 0.5
_MOST_REPEATED: Final = 0.05
_MOST_LATE: Final = 0.001
_SLOWER: Final = 1.5  # ratio of the cadence to the model's period


def check_records(settings: Settings, tables: Sequence[ServedTable], seconds: float, records: int) -> Iterator[Finding]:
    """Yield what was found of some records: the newest of a topic, the first of a file."""
    about = "records"
    try:
        if settings.input.path is None:
            sample = samples.of_topic(settings, seconds=seconds, records=records)
        else:
            sample = samples.of_file(settings, records=records)
        events, rejections = open_decoder(_with_a_rest(settings), tables[0].metadata).decode(sample.polled)
    except DataError as error:
        yield Finding("warning", about, str(error))
        return
    except RillcastError as error:
        yield Finding("error", about, str(error))
        return
    if rejections:
        reasons = Counter(rejection.reason.value for rejection in rejections)
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        share = len(rejections) / len(sample)
        level: Level = "error" if share >= _MOST_REFUSED else "warning"
        text = f"{len(rejections):,} of {len(sample):,} would become dead letters ({listed}), the first: "
        yield Finding(level, about, text + rejections[0].detail)
    else:
        yield Finding("good", about, f"all of {len(sample):,} are observations")
    if events.routes is None:
        if len(events):
            yield from _streams(tables[0], "streams", profile(events), events)
        return
    for table in tables:
        yield from _table(table, events.take(np.flatnonzero(events.routes == table.number)))
    yield from _rest(settings, events)


def _with_a_rest(settings: Settings) -> Settings:
    """Return the settings with one more table for what no table takes; those with one model stay."""
    if not settings.models:
        return settings
    rest = ModelTable(name="rest", model=settings.models[0].model, aggregate="count" if settings.counts else None)
    return settings.model_copy(update={"models": (*settings.models, rest)})


def _table(table: ServedTable, events: EventBatch) -> Iterator[Finding]:
    """Yield what a table of models takes, and whether its model fits."""
    about, given, freq = table.subject, table.table, table.metadata.freq
    if not len(events):
        wanted = f"match = {given.match!r}" + ("" if given.only is None else f", only = {given.only!r}")
        text = f"it takes no event of the sample: none meets {wanted}, or a table before it takes them"
        yield Finding("warning", about, text)
        return
    found = profile(events)
    often = "" if found.frequency is None else f", most with an event every {found.frequency}"
    text = f"periods of {freq}; it takes {len(events):,} events of {found.streams:,} streams{often}"
    yield Finding("good", about, text)
    yield from _streams(table, about, found, events)


def _rest(settings: Settings, events: EventBatch) -> Iterator[Finding]:
    """Yield what no table of models takes."""
    rest = events.take(np.flatnonzero(events.routes == len(settings.models)))
    if not len(rest):
        return
    dead = settings.input.unmatched == "dead_letter"
    then = "become dead letters (unmatched)" if dead else "are left out and counted"
    names = set(rest.unique_ids)
    level: Level = "warning" if len(rest) < len(events) else "error"
    text = (
        f"no table takes {len(names):,} streams, such as {min(names)!r}: their events, {len(rest):,} of "
        f"{len(events):,}, {then}; a last table without match takes the rest"
    )
    yield Finding(level, "models", text)


def _streams(table: ServedTable, about: str, found: Profile, events: EventBatch) -> Iterator[Finding]:
    """Yield where streams and the model that serves them do not fit."""
    settings, metadata = table.settings, table.metadata
    if found.split:
        yield Finding(
            "error",
            about,
            f"{found.split:,} of {found.streams:,} have events in several partitions, such as "
            f"{found.split_example!r}: key the topic by stream, see `rillcast rekey`",
        )
    aggregated = settings.input.aggregate != "none"
    repeated = 0.0 if aggregated else repeated_periods(events, metadata.freq)
    if repeated > _MOST_REPEATED:
        yield Finding(
            "error",
            about,
            f"{repeated:.0%} of the events repeat a period of {metadata.freq} and would be ignored: set "
            f"input.aggregate, or choose a model of another frequency",
        )
    if found.frequency is not None:
        period_ms = metadata.frequency.nominal_ms
        if parse(found.frequency).nominal_ms > _SLOWER * period_ms:
            yield Finding(
                "warning",
                about,
                f"most have an event every {found.frequency}, and the model a period of {metadata.freq}: the periods "
                f"between count as gaps",
            )
    allowed_ms = settings.input.allowed_lateness_periods * metadata.frequency.nominal_ms
    if found.late > _MOST_LATE and not aggregated and found.lateness_ms > allowed_ms:
        yield Finding(
            "warning",
            about,
            f"{found.late:.1%} of the events are late by up to {duration(found.lateness_ms)}, more than "
            f"input.allowed_lateness_periods = {settings.input.allowed_lateness_periods} takes",
        )
    closes_late = settings.input.close == "partition" and found.disorder_ms > settings.input.grace_s * 1_000
    if aggregated and closes_late:
        yield Finding(
            "warning",
            about,
            f"events lie up to {duration(found.disorder_ms)} behind the newest of their partition, more than "
            f"input.grace_s = {settings.input.grace_s:g} waits: those of a closed period are late",
        )
