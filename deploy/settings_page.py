"""The page of all settings, made from their docstrings.

Owns: the text around the tables, and their form. Does not know: the meaning of a setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretStr

from rillcast.settings import Settings
from rillcast.settings.deprecated import RENAMED

_HEAD: Final = """\
# Settings

*For operators.*

Defaults < `rillcast.toml` (or `--config FILE`) < files of `secrets_dir` < environment < flags.
`kafka.group_id` is

    [kafka]                                    # in rillcast.toml
    group_id = "blue"

    RILLCAST_KAFKA__GROUP_ID=blue              # in the environment: two underscores between the parts
    rillcast run --kafka.group-id blue         # as a flag

An unknown key is an error in each of them.
An empty text unsets an optional setting, and is an error for the others and for secrets.
A `~` at the beginning of a path is the home directory.
`rillcast config` prints the effective settings, secrets redacted, and `rillcast run` logs them once.
`python -m deploy.generate` makes this page from the code.
"""
_RENAMED: Final = """\
## Renamed settings

An old name works in every source, with a warning. Both names in one source are an error.

| old name | name |
| --- | --- |
"""
_COLUMNS: Final = "| setting | default | meaning |\n| --- | --- | --- |\n"


def settings_page() -> str:
    """Return the page: a table per section, and the old names."""
    parts = [_HEAD]
    for path, section in _sections(Settings):
        heading = f"## {path or 'Model and device'}\n\n"
        about = "" if section is Settings else f"{' '.join((section.__doc__ or '').split())}\n\n"
        parts.append(heading + about + _COLUMNS + "".join(_rows(section, path)))
    renamed = "".join(f"| `{old}` | `{new}` |\n" for old, new in RENAMED.items())
    return "\n".join([*parts, _RENAMED + renamed])


def _sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield a section and those within it."""
    yield path, model
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _sections(field.annotation, f"{path}.{name}" if path else name)
        elif (tables := _of_tables(field.annotation)) is not None:
            yield f"{path}{name}[]", tables


def _of_tables(annotation: Any) -> type[BaseModel] | None:
    """Return the section of each table where a setting is a list of tables."""
    found = next(iter(get_args(annotation)), None) if get_origin(annotation) is tuple else None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _rows(section: type[BaseModel], path: str) -> Iterator[str]:
    """Yield a row of the table for each setting of a section."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        default = field.default
        shown = (
            ""
            if default is None or field.is_required() or isinstance(default, SecretStr)
            else f"`{json.dumps(default, default=str)}`"
        )
        yield f"| `{path}{'.' if path else ''}{name}` | {shown} | {' '.join((field.description or '').split())} |\n"
