"""Events for an engine without transport and codec.

Owns: the shape of the events, which keeps states ordinary. Does not know: what is measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.batcher import DEFAULT_RUNS, Runs
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.events import EventBatch

START_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z
_RUN, _RUNS = DEFAULT_RUNS.lengths[0], max(1, DEFAULT_RUNS.max_rows // DEFAULT_RUNS.lengths[0])


def name_of(bundle: Bundle) -> str:
    """Return the name of a bundle with its model id."""
    return f"{bundle.metadata.name}@{bundle.metadata.model_id}"


def whole_numbers(flag: str, text: str) -> list[int]:
    """Return the whole numbers of a flag, which commas separate.

    Raises:
        SettingsError: The text has something else.
    """
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise SettingsError(f"{flag} {text!r}: expected whole numbers separated by commas") from error


def daily(streams: IntArray, periods: IntArray) -> FloatArray:
    """Return observations with a daily shape, out of phase between streams."""
    wave = np.sin(streams + periods * (2 * np.pi / 24))
    return (wave.astype(np.float32) * 10 + 100).astype(np.float32)


class Load:
    """An engine of a model, and events for it: all streams in turn, then the next period."""

    def __init__(self, bundle: Bundle, on: device.Device, batch_rows: int, runs: Runs | None = None) -> None:
        # As in the service: on a GPU every call uses buffers that stay.
        batching = on.batching(batch_rows)
        self.engine = StepEngine(bundle, on, batching=batching if runs is None else replace(batching, runs=runs))
        self._frequency = bundle.metadata.frequency
        self._offset = 0
        self.about = {"model": name_of(bundle), "device": on.name}

    def step(self, partition: int, unique_ids: list[str], period: int, periods: int = 1) -> None:
        """Step streams through `periods` periods from `period` on."""
        period_of = period + np.repeat(np.arange(periods), len(unique_ids))
        y = daily(np.tile(np.arange(len(unique_ids)), periods), period_of)
        ds = self._frequency.ahead(START_MS, period_of)
        self.engine.step(EventBatch.of(unique_ids * periods, ds, y, partition=partition, first_offset=self._offset))
        self._offset += len(unique_ids) * periods

    def age(self, partition: int, unique_ids: list[str], periods: int) -> None:
        """Bring new streams to a period in runs, as a backlog does; single steps would take many times as long."""
        for first in range(0, len(unique_ids), _RUNS):
            for period in range(0, periods, _RUN):
                self.step(partition, unique_ids[first : first + _RUNS], period, min(_RUN, periods - period))
