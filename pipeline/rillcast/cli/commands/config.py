"""`rillcast config`: the effective settings."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from rillcast.cli import flags
from rillcast.figures import to_json

EXAMPLES: Final = """\
examples:
  rillcast config
  RILLCAST_KAFKA__GROUP_ID=blue rillcast config --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of TOML")
    flags.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print the settings that `rillcast run` would use with the same file, environment and flags."""
    effective = flags.load_settings(args).redacted()
    if args.json:
        print(to_json(effective))
        return 0
    _print_table(effective)
    return 0


def _print_table(values: dict[str, Any], path: str = "") -> None:
    """Print plain values before tables, the order that TOML requires."""
    tables = {name: value for name, value in values.items() if isinstance(value, dict) or _is_tables(value)}
    for name, value in values.items():
        if name not in tables:
            print(_line(name, value))
    for name, value in tables.items():
        for each in [value] if isinstance(value, dict) else value:
            print(f"\n[{path}{name}]" if isinstance(value, dict) else f"\n[[{path}{name}]]")
            _print_table(each, f"{path}{name}.")


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _line(name: str, value: object) -> str:
    """Return one line of TOML; an unset value is a comment, because TOML has no null."""
    # JSON and TOML write strings, numbers and booleans in the same way.
    return f"# {name} is not set" if value is None else f"{name} = {json.dumps(value)}"
