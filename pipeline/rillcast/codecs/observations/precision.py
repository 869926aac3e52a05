"""Watches whether the values of streams keep their changes when they become float32.

Owns: which streams are watched, and the one warning of a process.
Does not know: the limits (`rillcast.bundle.precision`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rillcast.bundle import precision

log = logging.getLogger(__name__)

_STREAMS: Final = 100  # watched at once: the first ones that come
_ROWS: Final = 64  # looked at in a poll, so that watching costs microseconds
_VALUES: Final = 16  # of a stream, then it is judged


class PrecisionWatch:
    """Warns once. Used from one thread."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._warned = False

    def see(self, unique_ids: Sequence[str], y: npt.NDArray[np.float64]) -> None:
        """Take the observations of a poll: ids and `(n,)` values in their order."""
        if self._warned:
            return
        values = self._values
        for unique_id, value in zip(unique_ids[:_ROWS], y[:_ROWS].tolist(), strict=True):
            seen = values.get(unique_id)
            if seen is None:
                if len(values) < _STREAMS:
                    values[unique_id] = [value]
                continue
            seen.append(value)
            if len(seen) < _VALUES:
                continue
            reason = precision.unresolved(np.array(seen))
            del values[unique_id]  # another stream may take its place
            if reason is not None:
                log.warning("stream %r: %s; later streams of this kind are not named", unique_id, reason)
                self._warned = True
                return
