"""Several bundles on the same data: how their cells pass gradients back in time.

Owns: the choice of streams and batches. Does not know: how norms are taken, or drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from rillcast.bundle.bundle import Bundle
from rillcast.errors import DataError
from rillcast_training.data.columns import Columns
from rillcast_training.data.series import Series, load
from rillcast_training.data.split import split
from rillcast_training.data.windows import WindowSampler
from rillcast_training.explain.gradients import Clipping, Profile, clipping, gradient_profiles
from rillcast_training.explain.history import history_of
from rillcast_training.export.restore import restore
from rillcast_training.fit.trainer import CLIP_NORM
from rillcast_training.model.forecaster import Forecaster

_BATCH: Final = 32
_ORIGINS: Final = 32
_VALIDATION: Final = 0.1


@dataclass(frozen=True, slots=True)
class GradientFigures:
    """One model's figures.

    Attributes:
        name: Name of the file, without its ending.
        cell: Name of its cell.
        streams: Streams measured.
        to_state: Norms with respect to the state.
        to_input: Norms with respect to the cells' input.
        clipping: Norms of the loss's gradient; None without batches.
    """

    name: str
    cell: str
    streams: int
    to_state: Profile
    to_input: Profile
    clipping: Clipping | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return {
            "name": self.name,
            "cell": self.cell,
            "streams": self.streams,
            "to_state": self.to_state.to_dict(),
            "to_input": self.to_input.to_dict(),
            "clipping": None if self.clipping is None else self.clipping.to_dict(),
        }


def compare(
    models: Sequence[Path],
    data: Path,
    columns: Columns | None = None,
    *,
    lags: int,
    streams: int,
    batches: int,
    seed: int,
) -> list[GradientFigures]:
    """Measure every model on the end of the same streams.

    Args:
        models: Bundles that `rillcast train` made.
        data: Data set; read at each model's frequency.
        columns: Names of its columns; by default `unique_id, ds, y`.
        lags: Steps back.
        streams: Number of streams, evenly spread over those that are long enough.
        batches: Training batches whose gradients are taken; 0 = none.
        seed: Seed of random directions and batches.

    Raises:
        BundleError: a file is no bundle.
        DataError: it has no module, or no stream is long enough.
    """
    found = []
    for path in models:
        bundle = Bundle.load(path)
        forecaster = restore(bundle)
        series = load(data, bundle.metadata.freq, columns, bundle.metadata.covariates)
        inputs = _inputs(forecaster, series, lags, streams)
        to_state, to_input = gradient_profiles(forecaster.cell, inputs, lags=lags, seed=seed)
        clipped = _clipping(forecaster, series, batches, seed) if batches else None
        name = path.name.removesuffix(".onnx")
        found.append(GradientFigures(name, bundle.metadata.cell, len(inputs), to_state, to_input, clipped))
    return found


def _inputs(forecaster: Forecaster, series: Sequence[Series], lags: int, streams: int) -> torch.Tensor:
    """Return `[S, T, inputs]`, the cells' inputs over the last events of evenly spread streams."""
    steps = lags + 1 + forecaster.config.context
    long_enough = [one for one in series if len(one.periods) >= steps]
    too_short = DataError(
        f"no stream ends with {steps} events without a long gap, which {lags} lags after a whole context need"
    )
    if not long_enough:
        raise too_short
    spread = np.unique(np.linspace(0, len(long_enough) - 1, streams).round().astype(int)).tolist()
    picked = [long_enough[number] for number in spread]
    rows = []
    for one in picked:
        history = history_of(one, forecaster.config, limit=steps)
        if len(history.periods) == steps:
            with torch.no_grad():
                sequences = history.sequences(torch.from_numpy(history.y).nan_to_num().unsqueeze(0))
                view = forecaster.view(sequences)
                rows.append(forecaster.cell_inputs(view, sequences.gap, sequences.observed)[0])
    if not rows:
        raise too_short
    return torch.stack(rows)


def _clipping(forecaster: Forecaster, series: Sequence[Series], batches: int, seed: int) -> Clipping:
    config = forecaster.config
    sampler = WindowSampler(
        split(series, config, _VALIDATION), config, window=2 * config.context, origins=_ORIGINS, batch=_BATCH
    )
    return clipping(forecaster, sampler.epoch(seed, 0, batches), bound=CLIP_NORM)
