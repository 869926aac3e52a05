"""Settings of several models in one service, each for the streams that its table names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from rillcast.reading.paths import HEADER, conditions, unescaped
from rillcast.settings.section import FileText, Section, require_no_user, with_home


def _as_text(value: Any) -> Any:
    """Accept a path from code; files and flags always have text."""
    return str(value) if isinstance(value, Path) else value


def require_no_keys(value: str) -> str:
    """Refuse the address of a model with a user name or a password in it.

    Raises:
        ValueError: It has one.
    """
    registry, _, _ = value.rpartition("@")
    require_no_user(registry, "use the object store's own variables (AWS_ACCESS_KEY_ID, ...)")
    return value


ModelText = Annotated[str, BeforeValidator(_as_text), AfterValidator(with_home), AfterValidator(require_no_keys)]
"""A file, a shipped bundle, or a model of a registry."""


class ModelTable(Section):
    """One model of several, see [several-models.md](how-to/several-models.md)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """Name of the table: in logs, metrics (label `model`) and keys of the stored state. A new name begins without
    state."""
    model: ModelText
    """Bundle that serves the streams of the table, as in the setting `model`."""
    match: str = "*"
    """Pattern of the stream ids that the table takes: `*` is any text, `?` any character, `[ab]` one of some."""
    only: str | None = None
    """Takes only records whose members have these texts, in the notation of `input.only`; a header is `$header.NAME`.
    Members of a topic's records are then read whole, which is slower."""
    shadow: FileText | None = None
    """Second model that steps the table's events too, as `rollout.shadow` does for a service with one model."""
    aggregate: Literal["none", "last", "first", "mean", "sum", "count", "min", "max"] | None = None
    """Aggregates the table's events, in place of `input.aggregate`; unset = as that says. The period is that of the
    table's model."""

    @field_validator("only")
    @classmethod
    def _conditions_can_be_read(cls, value: str | None) -> str | None:
        conditions(value)
        return value

    @property
    def columns(self) -> list[str]:
        """The columns that the conditions ask a file for."""
        asked = [each.path.text for each in conditions(self.only)]
        return [unescaped(text) for text in asked if not text.startswith(HEADER)]
