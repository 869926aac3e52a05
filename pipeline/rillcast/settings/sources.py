"""Sources of the settings: defaults < `rillcast.toml` < secret files < environment < command-line flags.

Owns: reading each source, and the error for an unknown name in any of them. Does not know: the meaning of a setting.

In the environment a setting is `RILLCAST_` and its path, joined by two underscores: `kafka.bootstrap_servers` is
`RILLCAST_KAFKA__BOOTSTRAP_SERVERS`.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from rillcast.errors import SettingsError
from rillcast.settings.deprecated import RENAMED, translate
from rillcast.settings.root import ENV_PREFIX, Settings
from rillcast.settings.section import setting_paths, with_home

DEFAULT_FILE: Final = Path("rillcast.toml")
MAX_SECRET_BYTES: Final = 65_536


def load(
    file: Path | None = None,
    flags: PydanticBaseSettingsSource | None = None,
    default_file: Path | None = DEFAULT_FILE,
) -> Settings:
    """Read the effective settings.

    Args:
        file: A TOML file that has to exist; None takes `default_file` if that exists.
        flags: The source with the flags of the command line.
        default_file: `rillcast.toml` of the working directory; None = no file.

    Raises:
        SettingsError: A key is unknown, a value is wrong, or the file cannot be read.
    """
    if file is not None and not file.is_file():
        raise SettingsError(f"settings file {file} does not exist")
    chosen = file or (default_file if default_file is not None and default_file.is_file() else None)

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is pydantic-settings'
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            found = [] if flags is None else [translate(flags(), "the flags")]
            found.append(translate(env_settings(), "the environment"))
            toml = {} if chosen is None else translate(read_toml(chosen), str(chosen))
            folders = (str(values.get("secrets_dir") or "").strip() for values in (*found, toml))
            if folder := next(filter(None, folders), ""):
                found.append(translate(read_secrets(with_home(Path(folder))), f"secrets_dir {folder}"))
            return init_settings, *(InitSettingsSource(settings_cls, values) for values in (*found, toml))

    try:
        settings = Loaded()
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors(include_url=False)]
        raise SettingsError("settings cannot be used:\n" + "\n".join(lines)) from error
    except ValueError as error:  # a variable whose JSON cannot be read
        raise SettingsError(f"settings cannot be used: {error}") from error
    if unknown := unknown_environment():
        raise SettingsError(f"unknown settings in the environment: {', '.join(unknown)}")
    return Settings.model_validate(settings.model_dump(mode="python"))


def read_toml(file: Path) -> dict[str, Any]:
    """Return the tables of a settings file.

    Raises:
        SettingsError: The file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"settings file {file}: {error}") from error


def read_secrets(folder: Path) -> dict[str, Any]:
    """Return the settings in a directory of files, one setting a file.

    The file's name is the setting's path; its dots may be two underscores, because Docker and Kubernetes allow few
    characters. One line end at the end of a file is removed. Hidden entries (Kubernetes' `..data`) are skipped.

    Raises:
        SettingsError: The directory or a file cannot be read, or a file has the name of no setting.
    """
    known = {spelled: path for path in _known_paths() for spelled in (path, path.replace(".", "__"))}
    values: dict[str, Any] = {}
    try:
        for file in sorted(folder.iterdir()):
            if file.name.startswith(".") or not file.is_file():
                continue
            if file.name not in known:
                raise SettingsError(f"secrets_dir {folder}: file {file.name!r} has the name of no setting")
            if file.stat().st_size > MAX_SECRET_BYTES:
                raise SettingsError(f"secrets_dir {folder}: {file.name} has more than {MAX_SECRET_BYTES} bytes")
            section = values
            *sections, name = known[file.name].split(".")
            for step in sections:
                section = section.setdefault(step, {})
            section[name] = file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"secrets_dir {folder}: {error}") from error
    return values


def unknown_environment() -> list[str]:
    """Return the variables that start with `RILLCAST_` and name no setting, which pydantic ignores."""
    known = {ENV_PREFIX + path.replace(".", "__").upper() for path in _known_paths()}
    known |= {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX) and not name.startswith(ENV_PREFIX + "TEST_") and name.upper() not in known
    )


def _known_paths() -> list[str]:
    return [*setting_paths(Settings), *RENAMED]
