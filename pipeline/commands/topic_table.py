"""The input topic as a table: `unique_id, ds, y`, as training takes it.

Owns: what the table holds (every observation that the service would have stepped, in the order of each partition) and
what is said of the rest. Does not know: slots, series, models.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands import reading
from pipeline.errors import DataError, SettingsError
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a topic.

    Attributes:
        topic: its name.
        events: rows of the table.
        refused: records that are no observations, by reason; `example` tells of the first.
        example: empty if none was refused.
    """

    topic: str
    events: int
    refused: Counter[str]
    example: str

    def told(self, path: Path) -> str:
        """Return it for a person."""
        text = f"{path}: {self.events:,} observations of topic {self.topic}"
        if not self.refused:
            return text
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.refused.most_common())
        return f"{text}; {self.refused.total():,} records are none ({reasons}), the first: {self.example}"


def write(settings: Settings, path: Path, last: int | None = None) -> Taken:
    """Read what the input topic holds now into a Parquet file.

    Records go through the decoder of the service, so what it would send to the dead letters is not in the table. A
    model's covariates are not read.

    Args:
        settings: which topic, how to reach it, how its records are written.
        path: of the file; replaced if it is there.
        last: only so many records of each partition; None = all that are retained.

    Raises:
        SettingsError: the input is a file.
        TransportError: the topic cannot be read.
        DataError: it holds no observation, or the file cannot be written.
    """
    import polars as pl

    from pipeline.codecs.connect import open_decoder

    if settings.input.path is not None:
        raise SettingsError(f"input.path is {settings.input.path!r}, a file; give it as DATA, without --from-topic")
    topic = settings.input.topic
    decoder = open_decoder(settings, None)
    parts: list[pl.DataFrame] = []
    refused: Counter[str] = Counter()
    example = ""
    for polled in reading.polls(settings, "train", topic=topic, last=last):
        events, rejections = decoder.decode(polled)
        refused.update(rejection.reason.value for rejection in rejections)
        example = example or next((rejection.detail for rejection in rejections), "")
        parts.append(
            pl.DataFrame(
                {"unique_id": events.unique_ids, "ds": events.ds, "y": events.y.astype("float64")},
                schema_overrides={"unique_id": pl.String},
            )
        )
    taken = Taken(topic, sum(map(len, parts)), refused, reading.printable(example.encode()))
    if not taken.events:
        found = f"{refused.total():,} records, none of which is an observation ({taken.example})" if refused else "none"
        raise DataError(f"topic {topic}: expected observations, found {found}")
    try:
        pl.concat(parts).with_columns(pl.col("y").fill_nan(None)).write_parquet(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    return taken
