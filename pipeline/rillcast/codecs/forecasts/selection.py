"""The part of a forecast that is published: some of the levels, some of the steps.

Owns: which numbers these are, and the description of a model that publishes only them. Does not know: bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts.columns import ForecastColumns, ForecastEncoder, level_name


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Some levels and steps of a model's forecasts.

    Attributes:
        metadata: The model's metadata with the `q` chosen levels, and the number `h` of chosen steps as its horizon.
        steps: `(h,)` int64, the chosen steps, counted from 1.
        levels: `(q,)` int64, indices of the chosen levels.
    """

    metadata: BundleMetadata
    steps: IntArray
    levels: IntArray

    @classmethod
    def of(cls, metadata: BundleMetadata, levels: Sequence[float] = (), steps: Sequence[int] = ()) -> Selection:
        """Choose; empty = all.

        Raises:
            ValueError: The model has no such level or step.
        """
        names = [level_name(level) for level in metadata.quantiles]
        wanted = [level_name(level) for level in levels] or names
        if absent := [name for name in wanted if name not in names]:
            raise ValueError(f"publish.levels has {', '.join(absent)}, but {metadata.name} has {', '.join(names)}")
        if steps and max(steps) > metadata.horizon:
            raise ValueError(
                f"publish.horizons has step {max(steps)}, but {metadata.name} has steps 1 to {metadata.horizon}"
            )
        chosen = [metadata.quantiles[names.index(name)] for name in wanted]
        numbers = np.array(steps or range(1, metadata.horizon + 1), np.int64)
        shown = metadata.model_copy(update={"quantiles": tuple(chosen), "horizon": numbers.size})
        return cls(shown, numbers, np.array([names.index(name) for name in wanted], np.int64))

    @property
    def named_steps(self) -> list[int] | None:
        """The steps, where they are not simply the first ones, so that a record has to name them."""
        steps: list[int] = self.steps.tolist()
        return None if steps[-1] == len(steps) else steps

    def take(self, forecast: FloatArray) -> FloatArray:
        """Return the chosen part, `(n, h, q)`, of `(n, H, Q)`."""
        part: FloatArray = forecast[:, self.steps - 1][:, :, self.levels]
        return part


class SelectedEncoder:
    """Encodes the chosen part of whole forecasts."""

    def __init__(self, selection: Selection, encoder: ForecastEncoder) -> None:
        """Wrap the encoder of `selection.metadata`."""
        self._selection = selection
        self._encoder = encoder
        self.records_per_forecast = encoder.records_per_forecast

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """See `ForecastEncoder.encode`."""
        return self._encoder.encode(self._part(columns))

    def whole(self, columns: ForecastColumns, values: list[bytes]) -> list[bytes]:
        """See `ForecastEncoder.whole`."""
        return self._encoder.whole(self._part(columns), values)

    def _part(self, columns: ForecastColumns) -> ForecastColumns:
        return replace(columns, forecast=self._selection.take(columns.forecast))
