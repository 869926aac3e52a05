"""Base of the sections: their class, common types, a check of addresses, and the paths of all settings."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A table of settings; an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
