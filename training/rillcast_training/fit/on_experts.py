"""Training of a network on top of a mixture of experts.

Owns: the shape of the mixture that options ask for, and the training of its network on traces. Does not know: the loop
(`rillcast_training.fit.trainer`), how a trace is made (`rillcast_training.data.traces`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from rillcast.bundle.bundle import Bundle
from rillcast.errors import SettingsError
from rillcast_training.data.split import SplitSeries
from rillcast_training.data.traces import Trace, TraceSampler, trace, validation_of
from rillcast_training.data.windows import Batch
from rillcast_training.export.experts import restore_experts
from rillcast_training.export.trace_graph import TraceGraph
from rillcast_training.fit import parallel
from rillcast_training.fit.losses import losses_of
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.trainer import VALIDATION_BATCH, Trainer
from rillcast_training.model.experts.config import ExpertsConfig, NetworkShape
from rillcast_training.model.experts.defaults import default_seasons
from rillcast_training.model.experts.forecaster import ExpertForecaster
from rillcast_training.model.experts.network import Network, lines_between, trained_horizons
from rillcast_training.model.forecaster import ForecasterConfig

_FACTORS: Final = tuple(n / 20 for n in range(-6, 13))  # of the width: from e^-0.3 to e^0.6
_WIDTH_ORIGINS: Final = 48  # of each series


def experts_shape(options: TrainOptions, freq: str) -> ExpertsConfig:
    """Return the shape of the mixture with its network.

    With `init` it is that of the bundle, whose weights fit no other.

    Raises:
        SettingsError: options contradict each other.
    """
    if options.init is not None:
        there = restore_experts(Bundle.load(options.init)).config
        assert there.network is not None  # `is_on_experts` was asked before
        return replace(there, network=replace(there.network, dropout=options.dropout))
    try:
        return ExpertsConfig(
            freq=freq,
            horizon=options.horizon,
            seasons=options.seasons or default_seasons(freq),
            quantiles=options.quantiles,
            network=NetworkShape(options.cell, options.width, options.layers, options.dropout),
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


class TraceTrainer(Trainer):
    """The loop over traces in place of series."""

    def __init__(
        self, options: TrainOptions, config: ForecasterConfig, experts: ExpertsConfig, traces: Sequence[Trace]
    ) -> None:
        self.traces, self.anchors, self._alone = traces, experts.anchors, dict[str, float]()
        super().__init__(options, config, [], lambda _: with_network(experts).network)

    @property
    def count(self) -> int:
        """Number of series."""
        return len(self.traces)

    def _weights_of(self, init: Path) -> Mapping[str, Tensor]:
        """Return the weights of a bundle that is trained further."""
        network = restore_experts(Bundle.load(init)).network
        assert network is not None
        return network.state_dict()

    def _sampler(self) -> TraceSampler:
        options = self.options
        return TraceSampler(self.traces, window=self.window, origins=options.origins, batch=options.batch)

    def _validation(self, origins: int) -> Iterator[Batch]:
        return validation_of(
            self.traces, window=self.window, origins=origins, batch=VALIDATION_BATCH, share=parallel.own_share()
        )

    def validate(self) -> dict[str, float]:
        """Return the figures of the averaged weights, at the trained horizons, and those of the mixture alone."""
        network = self.averaged.module
        assert isinstance(network, Network)
        if not self._alone:
            self._alone = {f"experts_{name}": value for name, value in _named(self._figures(network.mixture)).items()}
        return _named(super().validate()) | self._alone

    def widths(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the logarithm of the factor of the width at each anchor with the least loss in validation, `[A]`.

        A network knows the series that it was trained on better than what comes after, and says widths for those.

        Args:
            weights: Weights of the network.
        """
        network = self.averaged.eval().module  # a resumed run may have no epoch left, which would do so
        network.load_state_dict(weights)
        horizons = trained_horizons(self.anchors)
        losses = torch.zeros(len(_FACTORS), len(horizons), dtype=torch.float64)
        with torch.no_grad():
            for batch in map(self.compute.put, self._validation(_WIDTH_ORIGINS)):
                forecast = network(batch.sequences, batch.origins)
                for row, factor in enumerate(_FACTORS):
                    wider = forecast._replace(distances=forecast.distances * math.exp(factor))
                    loss, _ = losses_of(self.levels, wider, batch.target, batch.scale, batch.weight)
                    losses[row] += loss.sum(dim=(0, 1)).double().cpu()
        around = lines_between(self.anchors, horizons).double()
        return torch.tensor(_FACTORS)[(parallel.summed(losses) @ around).argmin(dim=0)]

    def widened(self, widths: Tensor) -> dict[str, float]:
        """Return the figures of the weights that `widths` took, with those widths."""
        network = self.averaged.module
        assert isinstance(network, Network)
        network.widen(widths.to(self.compute.device))
        return self.validate()


def traces_of(parts: Sequence[SplitSeries], experts: ExpertsConfig, *, quiet: bool) -> list[Trace]:
    """Run the mixture, without a network, over the series."""
    alone = replace(experts, network=None)
    return trace(parts, alone, TraceGraph(alone), quiet=quiet)


def with_network(experts: ExpertsConfig, network: nn.Module | None = None) -> ExpertForecaster:
    """Return the forecaster of a network; None = one that is not trained."""
    forecaster = ExpertForecaster(experts)
    if network is not None:
        assert forecaster.network is not None
        forecaster.network.load_state_dict(network.state_dict())
    return forecaster


def _named(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures without those of the seasonal naive, which traces do not have."""
    return {name: value for name, value in figures.items() if not name.startswith("seasonal_naive")}
