"""A value that cannot be read: why, and what helps.

Owns: the exception, and how values and names are shown in a message without filling a screen. Does not know: where the
value stands; the caller adds file, row and column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

Kind: TypeAlias = Literal["wrong_type", "bad_id", "ds_out_of_range", "y_out_of_range", "not_utf8"]
"""Reason of a refusal; the same words are reason codes of dead letters."""
Cause: TypeAlias = Literal["decimal", "unit"]
"""Likely cause that an option of the caller mends."""
_SHOWN_CHARS: Final = 60
_SHOWN_NAMES: Final = 12


class RefusedValueError(ValueError):
    """A value has no meaning here, or more than one.

    Attributes:
        kind: Reason.
        detail: What was found and what was expected.
        cause: Likely cause, if an option mends it.
    """

    def __init__(self, kind: Kind, detail: str, cause: Cause | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.cause = kind, detail, cause

    def explain(self, remedies: Mapping[Cause, str]) -> str:
        """Return the detail, with the remedy that a caller has for its cause."""
        remedy = remedies.get(self.cause) if self.cause is not None else None
        return self.detail if remedy is None else f"{self.detail}; {remedy}"


def shown(value: Any) -> str:
    """Return a value for a message: its text as Python writes it, cut to 60 characters."""
    head = value[: _SHOWN_CHARS + 1] if isinstance(value, str | bytes) else value
    text = repr(head)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def listed(names: Sequence[str]) -> str:
    """Return names for a message: the first twelve, each cut to 60 characters, and the number of the others."""
    text = ", ".join(shown(name) for name in names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"[{text}, and {more:,} more]" if more > 0 else f"[{text}]"
