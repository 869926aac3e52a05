"""Flags that several commands share: the settings, the data, the options of training, and the device.

Owns: how settings and options become flags, and flags become settings and options. Does not know: the settings and the
options themselves; their names, defaults and help stand where they are defined.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic_settings import CliSettingsSource

from rillcast import settings
from rillcast.bundle.registry import reference
from rillcast.errors import SettingsError
from rillcast.settings import InputSettings, Settings
from rillcast.settings.deprecated import RENAMED
from rillcast.settings.section import with_home

if TYPE_CHECKING:
    from rillcast_training.data.columns import Aggregate, Columns
    from rillcast_training.fit.options import Flag


_TEXT_FLAGS: Final = ("time_column", "time_unit", "separator", "decimal", "encoding")
_AGGREGATE_FLAGS: Final = ("aggregate", "close", "empty", "silent_after")
_Command: TypeAlias = Literal["train", "tune"]


def path(text: str) -> Path:
    """Return the path of a flag, with the home directory in place of a leading `~`.

    Shells replace it in `--out ~/m.onnx`, and many do not in `--out=~/m.onnx`.

    Raises:
        argparse.ArgumentTypeError: The text is empty.
    """
    return Path(path_text(text))


def path_text(text: str) -> str:
    """Return the same as text, where the name of a model or `-` may stand too.

    Raises:
        argparse.ArgumentTypeError: The text is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a name, found an empty text")
    return str(with_home(text))


# The settings.


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and one flag per setting, such as `--kafka.bootstrap-servers`."""
    parser.add_argument(
        "--config", type=path, metavar="FILE", help="settings file (default: rillcast.toml if it exists)"
    )
    source = CliSettingsSource[argparse.ArgumentParser](
        Settings,
        root_parser=parser,
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )
    for old in RENAMED:  # parsed like the others, and absent from the help; `settings.load` translates them
        parser.add_argument(f"--{old.replace('_', '-')}", dest=old, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(settings_source=source)


def load_settings(args: argparse.Namespace, default_file: Path | None = settings.DEFAULT_FILE) -> Settings:
    """Return the effective settings; `default_file` is read if `--config` names none.

    Raises:
        SettingsError: They are invalid.
    """
    values = {name: value for name, value in vars(args).items() if name not in ("settings_source", "config")}
    return settings.load(args.config, args.settings_source(parsed_args=values), default_file)


def with_local_model(given: Settings) -> Settings:
    """Return the same settings with each model as a file; one of a registry is looked up and pulled now.

    Raises:
        SettingsError, RegistryError, BundleError: See `reference.locate`.
    """
    return given.with_models({each.name: reference.locate(each.model, given.model_cache) for each in given.served})


# The device of the serving engine.


def add_device(parser: argparse.ArgumentParser, *, threads: bool = False) -> None:
    """Add `--device`, and `--threads` of ONNX Runtime if asked for."""
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="device (default: auto)")
    if threads:
        parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime in one call (default: 1)")


# The data: a file with columns of any name, or a built-in data set.


def add_data(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add `DATA` and the flags that name its columns."""
    parser.add_argument(
        "data",
        type=path,
        metavar="DATA",
        nargs="?" if optional else None,
        help="table (.csv, .jsonl, .parquet; the first two also .gz), or name of a data set (`rillcast data list`)",
    )
    add_columns(parser)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the columns of a table, say how its file is written, and aggregate its rows."""
    group = parser.add_argument_group("columns")
    group.add_argument(
        "--id-column",
        type=_names,
        metavar="NAME[,NAME]",
        help="columns that name a stream, joined by / (default: unique_id); '' = one stream",
    )
    group.add_argument("--time-column", metavar="NAME", help="column of the time (default: ds)")
    group.add_argument(
        "--value-column",
        type=_names,
        metavar="NAME[,NAME]",
        help="columns of the observations (default: y); each of several is a stream",
    )
    group.add_argument(
        "--time-unit", choices=["s", "ms", "us", "ns"], help="unit of times that are numbers (default: ms)"
    )
    group.add_argument("--separator", metavar="CHAR", help="between the cells of a CSV file (default: ,); '\\t' = tab")
    group.add_argument("--decimal", choices=[".", ","], help="decimal sign in a CSV file (default: .)")
    group.add_argument(
        "--encoding", metavar="NAME", help="encoding of a CSV or JSON Lines file (default: utf-8; or latin-1, ...)"
    )
    _add_aggregate(parser)


def _add_aggregate(parser: argparse.ArgumentParser) -> None:
    """Add the flags that aggregate the events of a table; their values are those of the settings `input.*`."""
    group = parser.add_argument_group("aggregation of raw events, as in the service (docs/data.md)")
    group.add_argument(
        "--aggregate",
        choices=_choices("aggregate"),
        help="make one observation of the events of each stream and period; as input.aggregate (default: none)",
    )
    group.add_argument(
        "--close",
        choices=_choices("close"),
        help="a stream's periods end with its own events (stream), or with the newest of all (partition); as "
        "input.close (default: stream)",
    )
    group.add_argument(
        "--empty",
        choices=_choices("empty"),
        help="value of a period without values; as input.empty (default: auto, 0 for sum and count)",
    )
    group.add_argument(
        "--silent-after",
        type=int,
        metavar="N",
        help="leave out empty periods after the first N of a silence; as input.silent_after (default: 100)",
    )


def _choices(setting: str) -> tuple[str, ...]:
    return typing.get_args(InputSettings.model_fields[setting].annotation)


def aggregate(args: argparse.Namespace) -> Aggregate | None:
    """Return how the flags aggregate the events of a table; None = they are observations.

    Raises:
        SettingsError: Flags contradict each other.
    """
    from rillcast_training.data.columns import Aggregate

    given = {name: getattr(args, name) for name in ("close", "empty", "silent_after")}
    given = {name: value for name, value in given.items() if value is not None}
    if args.aggregate in (None, "none"):
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise SettingsError(f"{flags}: only with --aggregate")
        return None
    found = Aggregate(args.aggregate, **given)
    if found.silent_after < 1:
        raise SettingsError(f"--silent-after {found.silent_after}: expected at least 1")
    return found


def columns(args: argparse.Namespace) -> Columns | None:
    """Return the columns that the flags name, and how events are aggregated; None = the usual ones, and not at all.

    Events that are counted need no column of observations: one is read where a flag names it.

    Raises:
        SettingsError: No file is written in the form that the flags name, or flags contradict each other.
    """
    from rillcast.reading.files import TextForm
    from rillcast_training.data.columns import Columns

    given = aggregate(args)
    usual = Columns()
    separator = "\t" if args.separator in ("\\t", "tab") else args.separator
    form = TextForm(
        usual.form.separator if separator is None else separator,
        args.decimal or usual.form.decimal,
        args.encoding or usual.form.encoding,
    )
    try:
        form.check()
    except ValueError as error:
        raise SettingsError(str(error)) from error
    named = Columns(
        usual.unique_id if args.id_column is None else args.id_column,
        args.time_column or usual.ds,
        args.value_column or (() if given is not None and given.kind == "count" else usual.y),
        unit=args.time_unit or usual.unit,
        form=form,
        aggregate=given,
    )
    return None if named == usual else named


def column_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags of columns and aggregation as they were given, for a command that is printed."""
    joined = {"id_column": args.id_column, "value_column": args.value_column}
    values = {name: None if names is None else ",".join(names) for name, names in joined.items()}
    for name in (*_TEXT_FLAGS, *_AGGREGATE_FLAGS):
        values[name] = getattr(args, name)
    return [
        part
        for name, value in values.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


# The options of training and of a search, each a field of a dataclass with a `Flag`.


def add_options(parser: argparse.ArgumentParser, options: type, command: _Command) -> None:
    """Add one flag per field of a dataclass of options that `command` takes.

    The flags have no defaults of their own: a flag that is not given is absent from the parsed arguments, and the
    dataclass supplies its default.
    """
    documented = _docstrings(options)
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    exclusive: dict[str, argparse._ActionsContainer] = {}
    for field, flag, heading in _flags(options, command):
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        container = groups[heading]
        if flag.excludes:
            if flag.excludes not in exclusive:
                exclusive[flag.excludes] = container.add_mutually_exclusive_group()
            container = exclusive[flag.excludes]
        default = flag.tune_default if command == "tune" and flag.tune_default is not None else field.default
        init = flag.init == "default" and command == "train"
        action = container.add_argument(
            flag_name(field, flag),
            dest=field.name,
            help=_help(flag.help or documented[field.name], default) + (" (with --init: its own)" if init else ""),
            default=argparse.SUPPRESS if default is field.default else default,
            **_value(options, field, flag),
        )
        action.required = field.default is MISSING and not init


def given(args: argparse.Namespace, options: type, command: _Command) -> dict[str, Any]:
    """Return the options that were given, by field."""
    values = {field.name: vars(args)[field.name] for field, _, _ in _flags(options, command) if field.name in args}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def flag_names(options: type, init: str) -> dict[str, str]:
    """Return the names of the flags by field, of those that `--init` affects in the same way."""
    return {field.name: flag_name(field, flag) for field, flag, _ in _flags(options, "train") if flag.init == init}


def flag_name(field: Field[Any], flag: Flag) -> str:
    """Return the name of a field's flag."""
    return flag.name or f"--{'no-' if field.default is True else ''}{field.name.replace('_', '-')}"


def _flags(options: type, command: _Command) -> Iterator[tuple[Field[Any], Flag, str]]:
    """Yield the fields that a command takes, with their flags and the headings that these stand under."""
    from rillcast_training.fit.options import Flag, TrainOptions

    hints = typing.get_type_hints(options, include_extras=True)
    for field in fields(options):
        for extra in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(extra, Flag):
                heading = extra.tune if command == "tune" and options is TrainOptions else extra.group
                if heading is not None:
                    yield field, extra, heading


def _value(options: type, field: Field[Any], flag: Flag) -> Mapping[str, Any]:
    """Return how argparse takes the value of a flag."""
    if _type(typing.get_type_hints(options)[field.name]) is bool and field.default is None:
        return {"action": argparse.BooleanOptionalAction}
    if isinstance(field.default, bool):
        return {"action": "store_false" if field.default else "store_true"}
    found: dict[str, Any] = {"metavar": flag.metavar or flag_name(field, flag)[2:].replace("-", "_").upper()}
    if flag.choices:
        return {"choices": flag.choices}
    if flag.bare is not None:
        found |= {"nargs": "?", "const": flag.bare}
    if flag.repeated:
        found["action"] = "append"
    parse = flag.parse or _type(typing.get_type_hints(options)[field.name])
    return found | {"type": partial(_parsed, parse) if flag.parse else parse}


def _type(annotation: Any) -> Callable[[str], Any]:
    """Return the type of an annotation, without None."""
    if isinstance(annotation, types.UnionType):
        annotation = next(one for one in typing.get_args(annotation) if one is not types.NoneType)
    found: Callable[[str], Any] = path if annotation is Path else annotation
    return found


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _docstrings(options: type) -> dict[str, str]:
    """Return the docstring below each field; a dataclass keeps none of them."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(options))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = inspect.cleandoc(ast.literal_eval(below.value))
    return found


def _help(text: str, default: Any) -> str:
    """Return the first sentence of a docstring as the help of a flag, with the default."""
    sentence = re.split(r"(?<!\.\.)\.(?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
    sentence = sentence if sentence[:2].isupper() else sentence[0].lower() + sentence[1:]
    if default not in (None, MISSING, ()) and not isinstance(default, bool) and "(default" not in sentence:
        values = default if isinstance(default, tuple) else (default,)
        shown = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        sentence += f" (default: {shown})"
    return sentence.replace("%", "%%")
