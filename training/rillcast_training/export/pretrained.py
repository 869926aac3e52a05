"""The networks of the shipped bundles, which were trained on series of many kinds.

Owns: which shapes of a mixture have one, and how it is put on top of a mixture. Does not know: how it was trained
(`rillcast_training.research.pretraining`).

The shipped bundle itself holds the weights, so there is one place where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import Tensor

from rillcast.bundle import shipped
from rillcast.bundle.bundle import Bundle
from rillcast.errors import BundleError
from rillcast_training.export.experts import restore_experts
from rillcast_training.model.experts.config import ExpertsConfig, NetworkShape
from rillcast_training.model.experts.forecaster import ExpertForecaster

PRETRAINED: Final = "pretrained"
"""Entry of `training` in the metadata with how a network was trained."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A shipped network.

    Attributes:
        config: The mixture that it is on top of.
        shape: Its own shape.
        weights: Its weights.
        training: How it was trained, for the metadata.
        figures: Of its validation.
    """

    config: ExpertsConfig
    shape: NetworkShape
    weights: Mapping[str, Tensor]
    training: dict[str, Any]
    figures: dict[str, float]

    def fits(self, config: ExpertsConfig) -> bool:
        """Whether it was trained on top of this very mixture."""
        return replace(config, network=self.shape) == self.config

    def on(self, config: ExpertsConfig) -> ExpertForecaster:
        """Return a mixture with the network on top.

        Raises:
            RuntimeError: the mixture has other experts or anchors.
        """
        forecaster = ExpertForecaster(replace(config, network=self.shape))
        assert forecaster.network is not None
        forecaster.network.load_state_dict(dict(self.weights))
        return forecaster.eval()


def pretrained(freq: str) -> Pretrained | None:
    """Return the network of a frequency; None = the shipped bundle is a mixture alone, or there is none."""
    try:
        bundle = Bundle.load(f"{shipped.PREFIX}{freq}")
    except BundleError:  # of this frequency none is shipped
        return None
    forecaster = restore_experts(bundle)
    shape, network = forecaster.config.network, forecaster.network
    if shape is None or network is None:
        return None
    training = {PRETRAINED: bundle.metadata.training[PRETRAINED]}
    return Pretrained(forecaster.config, shape, network.state_dict(), training, dict(bundle.metadata.backtest))
