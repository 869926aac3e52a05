"""The data of a command: a file with columns of any name, or a built-in data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rillcast_training.data.columns import Columns


def add(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add `DATA` and the flags that name its columns."""
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        nargs="?" if optional else None,
        help="a table (.csv, .jsonl, .parquet; the first two also .gz), or a data set by name (`rillcast data list`)",
    )
    add_columns(parser)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the columns."""
    group = parser.add_argument_group("columns")
    group.add_argument(
        "--id-column", type=_names, metavar="NAME[,NAME]", help="what names a stream, joined by /; '' = one stream"
    )
    group.add_argument("--time-column", metavar="NAME", help="the time (default: ds)")
    group.add_argument(
        "--value-column", type=_names, metavar="NAME[,NAME]", help="the observations; each of several is a stream"
    )


def columns(args: argparse.Namespace) -> Columns | None:
    """Return the columns that the flags name; None = the usual ones."""
    from rillcast_training.data.columns import Columns

    usual = Columns()
    named = Columns(
        usual.unique_id if args.id_column is None else args.id_column,
        args.time_column or usual.ds,
        args.value_column or usual.y,
    )
    return None if named == usual else named


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)
