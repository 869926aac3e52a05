"""Forecasters that were tried and brought no gain; none can be stepped or exported.

Owns: the addition of each to the forecaster in use. Does not know: data, training, figures.

Each has `forward` over whole sequences alone, which is enough for training and scoring. A shape with a gain moves into
the forecaster itself, with a state, an exported step and its proofs. A shape without one stays here with its figures
(docs/accuracy.md), so that they can be reproduced.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from rillcast_training.model.cells import make_cell
from rillcast_training.model.features import LagView
from rillcast_training.model.forecaster import Forecast, Forecaster, ForecasterConfig, Sequences
from rillcast_training.model.precision import mixed

_ATTENTION_WIDTH: Final = 32
_SOFT_LIMIT: Final = 8.0  # as in rillcast_training.model.features
_LEAST: Final = 1e-6  # least distance to the limit, relative, in float32


class Ensemble(Forecaster):
    """Two forecasters whose forecasts are averaged; each is trained on its own loss, on the same windows."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__(config)
        self.other = Forecaster(config)

    def forward(
        self, sequences: Sequences, origins: Tensor | None = None, products: torch.dtype = torch.float32
    ) -> Forecast:
        """Return the mean in evaluation, and both in training: the losses of a leading dimension are added."""
        both = super().forward(sequences, origins, products), self.other(sequences, origins, products)
        middle, distances = (torch.stack(parts) for parts in zip(*(one[:2] for one in both), strict=True))
        if not self.training:
            middle, distances = middle.mean(0), distances.mean(0)
        return both[0]._replace(middle=middle, distances=distances)


class JointEnsemble(Ensemble):
    """The same two forecasters, trained on the loss of their mean."""

    def forward(
        self, sequences: Sequences, origins: Tensor | None = None, products: torch.dtype = torch.float32
    ) -> Forecast:
        """Return the mean."""
        both = super().forward(sequences, origins, products)
        if not self.training:
            return both
        return both._replace(middle=both.middle.mean(0), distances=both.distances.mean(0))


class Attention(Forecaster):
    """A forecaster whose head also attends to the days of the lag window.

    A day is a key and a value, and the cells' output is the query of one softmax over all whole days (Vaswani et al.
    2017, Attention is all you need). The result is added to the output.
    """

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__(config)
        day, days = config.seasons[0], config.context // config.seasons[0]
        self.query = nn.Linear(config.hidden, _ATTENTION_WIDTH)
        self.key, self.value = nn.Linear(day, _ATTENTION_WIDTH), nn.Linear(day, config.hidden)
        self.day_bias = nn.Parameter(torch.zeros(days, _ATTENTION_WIDTH))
        nn.init.zeros_(self.value.weight)

    def view(self, sequences: Sequences) -> LagView:
        """Return the views, with each one's whole days, relative to the newest value, as its features ahead."""
        seen = super().view(sequences)
        streams = torch.arange(len(sequences.grid), device=sequences.grid.device).unsqueeze(1)
        lags = sequences.grid.unfold(1, self.config.context, 1)[streams, sequences.offset]
        lags = self.features.mask_unknown(lags, sequences.known)
        centred = (lags - lags[..., -1:]) / seen.scale
        centred = centred / (1 + centred.abs() / _SOFT_LIMIT)
        days, day = self.day_bias.shape[0], self.config.seasons[0]
        return seen._replace(ahead=centred[..., -days * day :])

    def forecast(self, outputs: Tensor, view: LagView) -> Forecast:
        """See `Forecaster.forecast`."""
        assert view.ahead is not None  # from `view`
        days = view.ahead.reshape(*outputs.shape[:-1], self.day_bias.shape[0], -1)
        likeness = torch.einsum("...k,...dk->...d", self.query(outputs), self.key(days) + self.day_bias)
        weights = torch.softmax(likeness / _ATTENTION_WIDTH**0.5, dim=-1)
        found = torch.einsum("...d,...dh->...h", weights, self.value(days))
        return super().forecast(outputs + found, view._replace(ahead=None))


class Dilated(Forecaster):
    """A second recurrent layer, added to the first, whose step continues from its state of a season ago.

    Chang et al. (2017), Dilated recurrent neural networks; such stacks were in the ES-RNN that won the M4 competition.
    """

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__(config)
        self.seasonal = make_cell(config.cell, config.hidden, config.hidden, 1)

    def forward(
        self, sequences: Sequences, origins: Tensor | None = None, products: torch.dtype = torch.float32
    ) -> Forecast:
        """See `Forecaster.forward`."""
        view = self.view(sequences)
        inputs = self.cell_inputs(view, sequences.gap, sequences.observed)
        with mixed(inputs.device, products):
            outputs = self.cell.sequence(inputs)
            outputs = outputs + self._seasonal(outputs)
            if origins is not None:
                streams = torch.arange(len(origins), device=origins.device).unsqueeze(1)
                outputs, view = outputs[streams, origins], view.take(streams, origins)
            return self.forecast(outputs, view)

    def _seasonal(self, inputs: Tensor) -> Tensor:
        """Return the second layer's outputs, `[S, T, hidden]`: each phase of the season is a separate sequence."""
        season, (streams, length, width) = self.config.seasons[0], inputs.shape
        rounds = -(-length // season)
        padded = nn.functional.pad(inputs, (0, 0, 0, rounds * season - length))
        phases = padded.reshape(streams, rounds, season, width).transpose(1, 2)
        outputs = self.seasonal.sequence(phases.reshape(streams * season, rounds, width))
        rows = outputs.reshape(streams, season, rounds, width).transpose(1, 2)
        return rows.reshape(streams, rounds * season, width)[:, :length]


class Arcsinh(Forecaster):
    """Arcsinh of the features, similar to a logarithm, instead of a limit at eight scales."""

    def view(self, sequences: Sequences) -> LagView:
        """See `Forecaster.view`."""
        seen = super().view(sequences)
        limited = seen.features[..., : self.features.num_features - 2 * len(self.features.cycles)]
        own = limited / (1 - limited.abs() / _SOFT_LIMIT).clamp(min=_LEAST)
        return seen._replace(features=torch.cat([own.asinh(), seen.features[..., limited.shape[-1] :]], dim=-1))
