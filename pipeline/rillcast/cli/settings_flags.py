"""The settings as command-line flags, for the commands that take them."""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic_settings import CliSettingsSource

from rillcast import settings
from rillcast.bundle.registry import reference
from rillcast.settings import Settings
from rillcast.settings.deprecated import RENAMED


def add(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and one flag per setting, such as `--kafka.bootstrap-servers`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (default: rillcast.toml, if there)")
    source = CliSettingsSource[argparse.ArgumentParser](
        Settings,
        root_parser=parser,
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )
    for old in RENAMED:  # parsed like the others, in no help; `load` translates them
        parser.add_argument(f"--{old.replace('_', '-')}", dest=old, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(settings_source=source)


def load(args: argparse.Namespace) -> Settings:
    """Return the effective settings.

    Raises:
        SettingsError: they cannot be used.
    """
    values = {name: value for name, value in vars(args).items() if name not in ("settings_source", "config")}
    return settings.load(args.config, args.settings_source(parsed_args=values))


def with_local_model(given: Settings) -> Settings:
    """Return the same settings with the model as a file: one of a registry is looked up, and pulled, now.

    Raises:
        SettingsError, RegistryError, BundleError: see `reference.locate`.
    """
    return given.model_copy(update={"model": reference.locate(given.model, given.model_cache)})
