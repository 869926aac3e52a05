"""W3C trace context, carried from an observation to its forecast (https://www.w3.org/TR/trace-context/).

Owns: which headers are carried, and which of them are valid. Does not know: how spans are made
(`rillcast.publishing.spans`, an extra).

Without spans a context passes on unchanged, as the specification asks; an invalid `traceparent` does not pass, nor does
its `tracestate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rillcast.arrays import IntArray
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.transports.base import Headers, Polled

if TYPE_CHECKING:
    from rillcast.publishing.spans import Spans  # needs an extra

_PARENT: Final = "traceparent"
_STATE: Final = "tracestate"
# Ids of zeros only are invalid, and so is version ff; only a version after 00 may say more than flags.
_VALID: Final = re.compile(
    rb"(?P<version>(?!ff)[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)
_NONE: Final[Headers] = ()


class TraceContext:
    """The trace headers of one model's forecasts."""

    def __init__(self, model: str, spans: Spans | None = None) -> None:
        """Begin.

        Args:
            model: Name and id of the bundle.
            spans: Makes a span for each sampled observation; None = contexts pass on as they came.
        """
        self._model = model
        self._spans = spans

    def headers(
        self, polled: Polled, records: IntArray, forecasts: ForecastColumns, seconds: float
    ) -> list[Headers] | None:
        """Return the headers of each forecast; None if none has any.

        Args:
            polled: The poll of their events.
            records: `(m,)` int64, the record of the poll that caused each forecast.
            forecasts: The `m` forecasts.
            seconds: Seconds that their step took, up to now.
        """
        contexts = carried(polled, records.tolist())
        if contexts is None or self._spans is None:
            return contexts
        return self._spans.of_forecasts(self._model, forecasts, contexts, seconds)


def carried(polled: Polled, rows: Iterable[int]) -> list[Headers] | None:
    """Return the trace context of each of these records; None if no record has any.

    Args:
        polled: The records.
        rows: Rows of the poll, in the order of their forecasts.
    """
    found = [_context(headers) if (headers := polled.headers(row)) else _NONE for row in rows]
    return found if any(found) else None


def _context(headers: Headers) -> Headers:
    parents = [value for name, value in headers if name.lower() == _PARENT]
    # By the specification, several parents are as good as none.
    if len(parents) != 1 or not _valid(parents[0]):
        return _NONE
    states = [(_STATE, value) for name, value in headers if name.lower() == _STATE and value is not None]
    return [(_PARENT, parents[0]), *states]


def _valid(parent: bytes | None) -> bool:
    match = _VALID.fullmatch(parent or b"")
    return match is not None and (match["more"] is None or match["version"] != b"00")
