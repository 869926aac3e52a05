"""Which forecasts are published: filters say of each forecast whether it passes.

Owns: the protocol of filters, and the policy of the settings. Does not know: codecs, sinks, who observes.

Invariant: a filter decides from the events of a partition in their order alone, so a replay publishes the same
forecasts. States and counts of events are the same whatever is kept back.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from rillcast.bundle.bundle import Status
from rillcast.bundle.frequency import Frequency
from rillcast.codecs.forecasts.columns import ForecastColumns

_MILLISECONDS: Final = Frequency(1)


class Filter(Protocol):
    """Keeps forecasts back. Used from one thread; each filter sees what the filters before it let pass."""

    def keep(self, forecasts: ForecastColumns) -> npt.NDArray[np.bool_]:
        """Return `(m,)` whether each forecast passes; the order of the forecasts is that of their publication."""
        ...

    def forget(self, partition: int) -> None:
        """Forget a partition that leaves, is read again, or gets another model."""
        ...


class Policy:
    """The filter of the settings `publish.warming_up` and `publish.every`."""

    def __init__(self, *, warming_up: bool = True, every: int = 1, frequency: Frequency = _MILLISECONDS) -> None:
        """Keep nothing in mind: the decision is a function of the forecast.

        Args:
            warming_up: Whether forecasts pass whose streams know fewer periods than the model's context.
            every: Only forecasts pass whose period's number since the epoch is a multiple of it.
            frequency: The length of a period.
        """
        self._warming_up = warming_up
        self._every = every
        self._frequency = frequency

    def keep(self, forecasts: ForecastColumns) -> npt.NDArray[np.bool_]:
        """See `Filter.keep`."""
        kept = np.ones(len(forecasts), np.bool_)
        if not self._warming_up:
            kept &= forecasts.status != Status.WARMING_UP
        if self._every > 1:
            kept &= self._frequency.period_of(forecasts.ds) % self._every == 0
        return kept

    def forget(self, partition: int) -> None:
        """See `Filter.forget`; there is nothing to forget."""
