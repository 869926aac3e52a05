"""Names of the columns of a table of observations. Owns no reader: `rillcast_training.data.tables` reads files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Columns:
    """Roles of the columns of a table.

    Attributes:
        unique_id: Columns that name a stream, joined by `/`; without any, the whole table is one stream.
        ds: Column of the time.
        y: Columns of observations. With more than one, each is its own stream, with the column as the last part of
            the stream's name.
        numbers: Numeric covariates; their columns keep their names.
        texts: Textual covariates; their columns keep their names.
        ahead: Numeric covariates with an optional column `future.NAME` of values for the next periods.
    """

    unique_id: tuple[str, ...] = ("unique_id",)
    ds: str = "ds"
    y: tuple[str, ...] = ("y",)
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every required column."""
        return (*self.unique_id, self.ds, *self.y, *self.numbers, *self.texts)
