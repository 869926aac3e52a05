"""W3C trace context, carried from an observation to its forecast (https://www.w3.org/TR/trace-context/).

Owns: which headers are carried, and what makes them valid. Does not know: spans (`rillcast.publishing.spans`, which
are optional).
Who makes none hands on what it got, unchanged, by the specification; an invalid `traceparent` is not handed on, nor its
`tracestate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rillcast.transports.base import Headers, Polled

_PARENT: Final = "traceparent"
_STATE: Final = "tracestate"
# Ids of zeros only are invalid, and so is version ff; only a version after 00 may say more than flags.
_VALID: Final = re.compile(
    rb"(?P<version>(?!ff)[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)
_NONE: Final[Headers] = ()


def carried(polled: Polled, rows: Iterable[int]) -> list[Headers] | None:
    """Return the headers that the forecasts of these records get, one entry per row; None if no record has any.

    Args:
        polled: the records.
        rows: of the poll, in the order of their forecasts.
    """
    found = [_context(headers) if (headers := polled.headers(row)) else _NONE for row in rows]
    return found if any(found) else None


def _context(headers: Headers) -> Headers:
    parents = [value for name, value in headers if name.lower() == _PARENT]
    # More than one parent says nothing, by the specification.
    if len(parents) != 1 or not _valid(parents[0]):
        return _NONE
    states = [(_STATE, value) for name, value in headers if name.lower() == _STATE]
    return [(_PARENT, parents[0]), *states]


def _valid(parent: bytes) -> bool:
    match = _VALID.fullmatch(parent)
    return match is not None and (match["more"] is None or match["version"] != b"00")
