"""Base of the sections: their class, common types, a check of addresses, and the paths of all settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Positive = Annotated[float, Field(gt=0)]


def with_home(path: Any) -> Any:
    """Return a path, a `Path` or its text, with the home directory in place of a leading `~`."""
    # `Path.expanduser` fails for the home of an unknown user, which may well be the name of a file.
    return type(path)(os.path.expanduser(path)) if path is not None else None  # noqa: PTH111  see above


FilePath = Annotated[Path, AfterValidator(with_home)]
"""A path; a leading `~` is the home directory, also where no shell has replaced it."""
FileText = Annotated[str, AfterValidator(with_home)]
"""The same as text, where `-` or the address of a registry may stand too."""
MAY_BE_EMPTY: Final = "may be empty"
"""Metadata of a setting whose empty text has a meaning of its own."""


def named(model: type[BaseModel], name: str, value: Any) -> Any:
    """Return the value of a setting; an empty text unsets a setting that is optional.

    Compose files and shells write an empty variable for one that is not set. Taken as a value it would name every
    host, the working directory, or a password that is none.

    Raises:
        ValueError: The text is empty, and the setting is not optional, or a secret.
    """
    field = model.model_fields[name]
    if not isinstance(value, str) or value.strip() or MAY_BE_EMPTY in field.metadata:
        return value
    if field.default is not None:
        raise ValueError(f"is empty; remove it to have the default, {field.default}")
    if "Secret" in str(field.annotation):
        raise ValueError("is empty; remove it to have none")
    return None


class Section(BaseModel):
    """A table of settings; an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> Any:
        return named(cls, str(info.field_name), value)


def require_no_user(address: str, instead: str) -> None:
    """Refuse an address with a user name or a password in it, because the settings are printed.

    Args:
        address: The address of a setting.
        instead: The part of the message that says where to put user name and password.

    Raises:
        ValueError: The address has a user name or a password.
    """
    if "@" in urlsplit(address).netloc:
        raise ValueError(f"a user name in the address would be printed with it; {instead}")


def setting_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted path of every setting."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            paths.extend(setting_paths(field.annotation, f"{prefix}{name}."))
        else:
            paths.append(prefix + name)
    return paths
