"""How far back gradients reach: norms of d(output at T) / d(state, input at T - k), and the effect of clipping.

Owns: the measurement. Does not know: files, pictures, which cell it is.

Backpropagation through time multiplies one Jacobian d(state_t) / d(state_(t-1)) per step. If they shrink, the network
cannot learn from distant events. If they grow, one step of the optimiser may throw the weights anywhere (Bengio, Simard
& Frasconi 1994, Learning long-term dependencies with gradient descent is difficult; Pascanu, Mikolov & Bengio 2013, On
the difficulty of training recurrent neural networks). Clipping the norm (the second paper's answer) bounds the step and
keeps its direction. It cures the growing, not the shrinking.

Method: for v drawn from a standard normal distribution, E |v^T J|^2 is the squared Frobenius norm of J. So each
stream's norm is the root mean square over a few v, each of which costs one backward pass for all lags.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from rillcast_training.data.windows import Batch
from rillcast_training.fit.losses import quantile_loss
from rillcast_training.model.cells import Cell
from rillcast_training.model.forecaster import Forecaster

FORGOTTEN: Final = 0.01  # share of the largest norm


@dataclass(frozen=True, slots=True)
class Profile:
    """Frobenius norms of a Jacobian by lag, over streams; index 0 is the step itself.

    Attributes:
        low: Tenth percentile.
        median: Median.
        high: Ninetieth percentile.
    """

    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def reach(self) -> int | None:
        """First lag after which the median stays below 1 % of its maximum; None = beyond the measured lags."""
        median = np.array(self.median)
        kept = np.flatnonzero(median >= FORGOTTEN * median.max())
        last = int(kept[-1]) if len(kept) else 0
        return None if last + 1 >= len(median) else last + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as JSON-ready values."""
        return asdict(self) | {"reach": self.reach}


@dataclass(frozen=True, slots=True)
class Clipping:
    """Norms of the loss's gradient over batches.

    Attributes:
        bound: Norm to which gradients are clipped.
        norms: Norms before clipping, one per batch.
    """

    bound: float
    norms: tuple[float, ...]

    @property
    def clipped_share(self) -> float:
        """Share of the batches whose gradient is shortened."""
        return float(np.mean(np.array(self.norms) > self.bound))

    def to_dict(self) -> dict[str, Any]:
        """Return the norms as JSON-ready values; `kept` is the median share of its length that a gradient keeps."""
        norms = np.array(self.norms)
        return {
            "bound": self.bound,
            "median": float(np.median(norms)),
            "largest": float(norms.max()),
            "clipped_share": self.clipped_share,
            "kept": float(np.median(np.minimum(1.0, self.bound / norms))),
        }


def gradient_profiles(
    cell: Cell, inputs: Tensor, *, lags: int, directions: int = 8, seed: int = 0
) -> tuple[Profile, Profile]:
    """Measure how the last output depends on the states and on the inputs before it.

    Args:
        cell: Any cell, stepped event by event.
        inputs: `[S, T, input]`, T > lags; the events before the last `lags` + 1 only warm the state up.
        lags: How far back, K.
        directions: Number of vectors v.
        seed: Seed of the vectors.

    Returns:
        Profiles of K + 1 norms: with respect to the whole state after step T - k, and to the input of step T - k.
    """
    steps = inputs.shape[1]
    if not 0 <= lags < steps:
        raise ValueError(f"{lags} lags need more than {steps} steps")
    state = cell.initial_state(len(inputs))
    with torch.no_grad():
        for t in range(steps - lags - 1):
            state = cell.step(inputs[:, t], state)
    states: list[tuple[Tensor, ...]] = []
    leaves: list[Tensor] = []
    for t in range(steps - lags - 1, steps):
        leaves.append(inputs[:, t].detach().clone().requires_grad_())
        state = cell.step(leaves[-1], state)
        states.append(state)
    output = cell.output(state)
    generator = torch.Generator().manual_seed(seed)
    wanted = [*leaves, *(part for one in states for part in one)]
    squares = torch.zeros(2, lags + 1, len(inputs), dtype=torch.float64)
    for _ in range(directions):
        direction = torch.randn(output.shape, generator=generator)
        found = torch.autograd.grad(output, wanted, direction, retain_graph=True, materialize_grads=True)
        of_inputs, of_states = found[: lags + 1], found[lags + 1 :]
        for k in range(lags + 1):
            parts = of_states[(lags - k) * len(state) : (lags - k + 1) * len(state)]
            squares[0, k] += sum((part.double().square().sum(1) for part in parts), torch.zeros(()))
            squares[1, k] += of_inputs[lags - k].double().square().sum(1)
    to_state, to_input = (squares / directions).sqrt().numpy()
    return _profile(to_state), _profile(to_input)


def clipping(forecaster: Forecaster, batches: Iterable[Batch], *, bound: float) -> Clipping:
    """Measure the norm of the loss's gradient over all weights, batch by batch; no weight changes."""
    levels = torch.tensor(forecaster.config.quantiles)
    weights = [weight for weight in forecaster.parameters() if weight.requires_grad]
    norms = []
    for batch in batches:
        loss, targets = quantile_loss(levels, forecaster(batch.sequences, batch.origins), batch.target, batch.scale)
        gradients = torch.autograd.grad(loss / targets.clamp(min=1), weights, materialize_grads=True)
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
    return Clipping(bound, tuple(norms))


def _profile(norms: np.ndarray[Any, Any]) -> Profile:
    """Return the percentiles over streams of `[K + 1, S]`."""
    low, median, high = (tuple(row.tolist()) for row in np.quantile(norms, (0.1, 0.5, 0.9), axis=1))
    return Profile(low, median, high)
