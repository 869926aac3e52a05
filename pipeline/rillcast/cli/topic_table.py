"""The input topic as a table: `unique_id, ds, y` and covariates, as training takes it.

Owns: the content of the table (every observation that the service would have stepped, in the order of each partition)
and the summary of the rest. Does not know: periods, series, models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from rillcast.bundle.covariates import Kind
from rillcast.cli import topic_reading
from rillcast.errors import DataError, SettingsError
from rillcast.outputs import replacing
from rillcast.settings import Settings
from rillcast.text import printable

if TYPE_CHECKING:
    import polars as pl

    from rillcast.codecs.observations.covariates import Vocabulary
    from rillcast.events import EventBatch

_OWN: Final = ("unique_id", "ds", "y")


@dataclass(frozen=True, slots=True)
class Taken:
    """Result of reading a topic.

    Attributes:
        topic: Name of the topic.
        events: Number of rows of the table.
        refused: Number of records that are no observations, by reason.
        example: Reason of the first refused record in full; empty if none was refused.
    """

    topic: str
    events: int
    refused: Counter[str]
    example: str

    def summary(self, path: Path) -> str:
        """Return one line for a person."""
        text = f"{path}: {self.events:,} observations of topic {self.topic}"
        if not self.refused:
            return text
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.refused.most_common())
        return f"{text}; {self.refused.total():,} records were rejected ({reasons}), the first: {self.example}"


def write(
    settings: Settings,
    path: Path,
    last: int | None = None,
    covariates: Sequence[tuple[str, Kind]] = (),
    horizon: int = 0,
) -> Taken:
    """Read the events that the input topic holds now into a Parquet file.

    Records go through the decoder of the service, so the table has no record that would be a dead letter. A covariate
    has the value that a model would have seen: that of the table of streams where the event has none, null where it is
    missing or out of range. A covariate has a column of its name. One that is known ahead also has a column
    `future.NAME` with its values for the next periods.

    Args:
        settings: Settings with the topic, its connection, and the format of its records.
        path: File to write; an existing one is replaced.
        last: Number of the last records of each partition to read; None = all that are retained.
        covariates: Name and kind of each covariate to read.
        horizon: Number of next periods.

    Raises:
        SettingsError: The input is a file, or the covariates cannot be read.
        TransportError: The topic cannot be read.
        DataError: The topic holds no observation.
        OutputError: The file cannot be written.
    """
    import polars as pl
    import polars.selectors as cs

    from rillcast.codecs.connect import open_learning_decoder

    if settings.input.path is not None:
        raise SettingsError(f"input.path is {settings.input.path!r}, a file; give it as DATA, without --from-topic")
    topic = settings.input.topic
    if own := [name for name, _ in covariates if name in _OWN]:
        raise SettingsError(
            f"covariate {own[0]!r}: the table has its own columns {', '.join(_OWN)}; rename the covariate"
        )
    try:
        decoder, vocabularies = open_learning_decoder(settings, covariates, horizon)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    parts: list[pl.DataFrame] = []
    refused: Counter[str] = Counter()
    example = ""
    for polled in topic_reading.polls(settings, "train", topic=topic, last=last):
        events, rejections = decoder.decode(polled)
        refused.update(rejection.reason.value for rejection in rejections)
        example = example or next((rejection.detail for rejection in rejections), "")
        frame = pl.DataFrame(
            {"unique_id": events.unique_ids, "ds": events.ds, "y": events.y.astype("float64")},
            schema_overrides={"unique_id": pl.String},
        )
        parts.append(frame.with_columns(_covariate_columns(events, covariates, vocabularies)))
    taken = Taken(topic, sum(map(len, parts)), refused, printable(example))
    if not taken.events:
        found = f"{refused.total():,} records that were all rejected ({taken.example})" if refused else "none"
        raise DataError(f"topic {topic}: expected observations, found {found}")
    frame = pl.concat(parts).with_columns(cs.float().fill_nan(None))
    with replacing(path) as partial:
        frame.write_parquet(partial)
    return taken


def _covariate_columns(
    events: EventBatch, covariates: Sequence[tuple[str, Kind]], vocabularies: Mapping[str, Vocabulary]
) -> list[pl.Series]:
    """Return the columns of the covariates."""
    import polars as pl

    if events.x is None:
        return []
    columns = []
    for number, (name, kind) in enumerate(covariates):
        values = events.x[:, number]
        if kind == "category":
            texts = np.array([None, *vocabularies[name].texts], object)
            columns.append(pl.Series(name, texts[np.nan_to_num(values).astype(np.int64)], pl.String))
        else:
            columns.append(pl.Series(name, values.astype(np.float64)))
    known = [name for name, kind in covariates if kind == "known"]
    for number, name in enumerate(known):
        assert events.future is not None  # because a covariate is known ahead
        values = events.future[:, number].astype(np.float64)
        flat = pl.Series(f"future.{name}", values.reshape(-1)).fill_nan(None)
        columns.append(flat.reshape(values.shape).cast(pl.List(pl.Float64)))
    return columns
