"""The records of a registry: a pushed model, and one move of an alias.

Owns: their members, and the forms of a model id and of an alias. Does not know: where they are kept.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LIVE: Final = "live"
_MODEL_ID: Final = re.compile(r"[0-9a-f]{16}")
_ALIAS: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")

_ModelId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Record = TypeVar("_Record", bound=BaseModel)


class Manifest(BaseModel):
    """A pushed model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    model_id: _ModelId
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: int
    name: str
    cell: str
    freq: str
    horizon: int
    quantiles: tuple[float, ...]
    pushed_at: dt.datetime


class Promotion(BaseModel):
    """One move of an alias; `back_to` is the number of the promotion that a rollback from here restores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    number: Annotated[int, Field(ge=1)]
    action: Literal["promote", "rollback"]
    model_id: _ModelId
    back_to: Annotated[int, Field(ge=1)] | None
    at: dt.datetime
    note: str = ""


def is_model_id(name: str) -> bool:
    """Return whether a name is a model id; it cannot be an alias then."""
    return _MODEL_ID.fullmatch(name) is not None


def is_alias(name: str) -> bool:
    """Return whether a name can be that of an alias."""
    return _ALIAS.fullmatch(name) is not None and not is_model_id(name)


def read_record(kind: type[_Record], data: bytes | str) -> _Record:
    """Return the record in its JSON.

    Raises:
        ValueError: It is none; the message says which member is wrong.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}") from error


def damaged(address: str, key: str, found: str) -> str:
    """Return the message on a record that somebody else changed."""
    return (
        f"registry {address}: {key} was changed or damaged: {found}; it was not used; "
        f"restore it from a backup of the storage, or name another model"
    )
