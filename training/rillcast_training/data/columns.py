"""Names of the columns of a table of observations, how its file is written, and how its rows become observations.

Owns no reader: `rillcast_training.data.tables` reads files.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from rillcast.bundle.frequency import parse
from rillcast.reading.files import TextForm
from rillcast.reading.times import Unit

if TYPE_CHECKING:
    from rillcast.engine.periods import Aggregation, Close, Empty, Kind


@dataclass(frozen=True, slots=True)
class Aggregate:
    """How the events of a table become one observation for each stream and period, as with `input.aggregate`.

    Attributes:
        kind: As the setting `input.aggregate`.
        close: As `input.close`; the whole table counts as one partition.
        empty: As `input.empty`.
        silent_after: As `input.silent_after`.
    """

    kind: Kind
    close: Close = "stream"
    empty: Empty = "auto"
    silent_after: int = 100

    @property
    def resolved_empty(self) -> Literal["missing", "zero"]:
        """What a period without values has."""
        from rillcast.engine.periods import value_of_empty

        return value_of_empty(self.kind, self.empty)

    def of(self, freq: str) -> Aggregation:
        """Return the same for periods of a frequency, as the engine takes it."""
        from rillcast.engine.periods import Aggregation

        empty = 0.0 if self.resolved_empty == "zero" else math.nan
        return Aggregation(self.kind, parse(freq), self.close, empty=empty, silent_after=self.silent_after)

    def as_settings(self) -> dict[str, Any]:
        """Return the values by the names of the settings, `empty` without `auto`."""
        values = asdict(self) | {"empty": self.resolved_empty}
        return {"aggregate": values.pop("kind"), **values}


@dataclass(frozen=True, slots=True)
class Columns:
    r"""Roles of the columns of a table, and the form of its cells.

    Attributes:
        unique_id: Columns that name a stream, joined by `/` (a `/` within a name is written `\/`); without any, the
            whole table is one stream.
        ds: Column of the time.
        y: Columns of observations. With more than one, each is its own stream, with the column as the last part of
            the stream's name. Without any, all values are missing: events may be counted.
        numbers: Numeric covariates; their columns keep their names.
        texts: Textual covariates; their columns keep their names.
        ahead: Numeric covariates with an optional column `future.NAME` of values for the next periods.
        unit: Unit of times that are numbers.
        form: How a text file is written.
        aggregate: How rows become observations; None = each is one.
    """

    unique_id: tuple[str, ...] = ("unique_id",)
    ds: str = "ds"
    y: tuple[str, ...] = ("y",)
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()
    unit: Unit = "ms"
    form: TextForm = field(default_factory=TextForm)
    aggregate: Aggregate | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """Every required column."""
        return (*self.unique_id, self.ds, *self.y, *self.numbers, *self.texts)

    @property
    def are_usual(self) -> bool:
        """Whether the columns have the names `unique_id, ds, y`, in the usual form, aggregated or not."""
        usual = Columns()
        return replace(self, aggregate=None, y=self.y or usual.y) == usual
