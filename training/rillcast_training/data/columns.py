"""Names of the columns of a table of observations, and how its file is written.

Owns no reader: `rillcast_training.data.tables` reads files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rillcast.reading.files import TextForm
from rillcast.reading.times import Unit


@dataclass(frozen=True, slots=True)
class Columns:
    r"""Roles of the columns of a table, and the form of its cells.

    Attributes:
        unique_id: Columns that name a stream, joined by `/` (a `/` within a name is written `\/`); without any, the
            whole table is one stream.
        ds: Column of the time.
        y: Columns of observations. With more than one, each is its own stream, with the column as the last part of
            the stream's name.
        numbers: Numeric covariates; their columns keep their names.
        texts: Textual covariates; their columns keep their names.
        ahead: Numeric covariates with an optional column `future.NAME` of values for the next periods.
        unit: Unit of times that are numbers.
        form: How a text file is written.
    """

    unique_id: tuple[str, ...] = ("unique_id",)
    ds: str = "ds"
    y: tuple[str, ...] = ("y",)
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()
    unit: Unit = "ms"
    form: TextForm = field(default_factory=TextForm)

    @property
    def all(self) -> tuple[str, ...]:
        """Every required column."""
        return (*self.unique_id, self.ds, *self.y, *self.numbers, *self.texts)
