"""Figures as they are shown: those without a value have a reason.

Owns: the number that stands for a figure without a value, its form in JSON and in text. Does not know: how a figure is
computed.

Invariant: JSON holds finite numbers only (RFC 8259, section 6). A figure without a value is null, and the member
`undefined` of the document says why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_NOT_FINITE: Final = {math.inf: "infinite", -math.inf: "infinite, below zero"}
UNDEFINED: Final = "undefined"
"""Member of a JSON document: the reasons, by the path of each figure without a value."""


class Undefined(float):
    """A NaN that knows why a figure has no value."""

    reason: str

    def __new__(cls, reason: str) -> Undefined:
        """Return a NaN with a reason."""
        self = super().__new__(cls, math.nan)
        self.reason = reason
        return self

    def __deepcopy__(self, _memo: Any) -> Undefined:
        """Return itself; it is immutable. `dataclasses.asdict` copies its values."""
        return self


def to_json(document: Any) -> str:
    """Return a JSON text without a number that is not finite.

    Args:
        document: JSON-ready values; an object gets the member `undefined` if a figure in it has no value.
    """
    reasons: dict[str, str] = {}
    finite = _finite(document, "", reasons)
    if reasons and isinstance(finite, dict):
        finite[UNDEFINED] = reasons
    return json.dumps(finite, allow_nan=False)


def shown(value: float, form: str) -> str:
    """Return a figure for a table in the form of `format`, such as `8.3f`; `-` of that width if it has no value."""
    if math.isfinite(value):
        return format(value, form)
    return "-".rjust(int(form.split(".")[0] or 0)) if form[0].isdigit() else "-"


def reasons_of(figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Yield name and reason of each figure without a value."""
    for name, value in figures.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield name, reason_of(value)


def reason_of(value: float) -> str:
    """Return why a number is not finite."""
    return value.reason if isinstance(value, Undefined) else _NOT_FINITE.get(value, "not a number")


def _finite(value: Any, path: str, reasons: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner, f"{path}.{name}" if path else str(name), reasons) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(inner, f"{path}[{number}]", reasons) for number, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        reasons[path] = reason_of(value)
        return None
    return value
