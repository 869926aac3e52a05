"""The records of the input against the settings that read them: dead letters, streams, cadence, lateness.

Owns: these comparisons and their words. Does not know: topics, rights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from rillcast.bundle.bundle import BundleMetadata
from rillcast.bundle.frequency import parse
from rillcast.codecs.connect import open_decoder
from rillcast.discovery import sample as samples
from rillcast.discovery.choice import duration
from rillcast.discovery.findings import Finding, Level
from rillcast.discovery.profile import Profile, profile, repeated_periods
from rillcast.errors import DataError, RillcastError
from rillcast.events import EventBatch
from rillcast.settings import Settings

_MOST_REFUSED: Final = 0.5
_MOST_REPEATED: Final = 0.05
_MOST_LATE: Final = 0.001
_SLOWER: Final = 1.5  # ratio of the cadence to the model's period


def check_records(settings: Settings, metadata: BundleMetadata, seconds: float, records: int) -> Iterator[Finding]:
    """Yield what was found of some records: the newest of a topic, the first of a file."""
    about = "records"
    try:
        if settings.input.path is None:
            sample = samples.of_topic(settings, seconds=seconds, records=records)
        else:
            sample = samples.of_file(settings, records=records)
        events, rejections = open_decoder(settings, metadata).decode(sample.polled)
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
    if len(events):
        yield from _streams(settings, metadata, events, profile(events))


def _streams(settings: Settings, metadata: BundleMetadata, events: EventBatch, found: Profile) -> Iterator[Finding]:
    about = "streams"
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
