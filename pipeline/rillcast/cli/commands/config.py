"""`rillcast config`: the effective settings."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from rillcast.cli import flags

EXAMPLES: Final = """\
examples:
  rillcast config
  RILLCAST_KAFKA__GROUP_ID=blue rillcast config --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of TOML")
    flags.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print what `rillcast run` would use, given the same file, environment and flags."""
    effective = flags.load_settings(args).redacted()
    if args.json:
        print(json.dumps(effective))
        return 0
    _print_table(effective)
    return 0


def _print_table(values: dict[str, Any], path: str = "") -> None:
    """Print what is no table, then the tables: TOML wants them in that order."""
    for name, value in values.items():
        if not isinstance(value, dict):
            print(_line(name, value))
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"\n[{path}{name}]")
            _print_table(value, f"{path}{name}.")


def _line(name: str, value: object) -> str:
    """Return one line of TOML; TOML has no null, so an unset value stands as a comment."""
    # A JSON string, number or boolean is written alike in TOML.
    return f"# {name} is not set" if value is None else f"{name} = {json.dumps(value)}"
