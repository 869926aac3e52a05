"""Features of covariates: those of the event, and those known ahead.

Owns: scaling, masks, embeddings, and which part of the forecaster sees which feature. Does not know: tables
(`rillcast_training.data.covariates`), streams, state. A forecaster without covariates has no such module.

    features    of the event: each number scaled, and whether it is present; a learnt vector of each category. They are
                inputs of the cells and of the head, so cells remember past covariates as they remember observations
    ahead       of the next H periods: each known covariate scaled, and whether it is present. Inputs of the head alone
    directions  each known covariate over the horizon. The head adds a share of it, one for each period ahead, which
                depends on the stream's state. So a promotion tomorrow moves tomorrow's forecast by its effect on this
                stream

Invariants: a missing value counts as the usual one and is marked as missing; no value makes a feature leave [-8, 8]; a
row's figures do not depend on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from rillcast.bundle.covariates import UNKNOWN, Covariate, ahead
from rillcast_training.model.features import MAX_ABS_Y, LagView

_SOFT_LIMIT: Final = 8.0  # as for the other features
_MAX_VECTOR: Final = 16  # numbers that describe a category


class CovariateFeatures(nn.Module):
    """Adds covariates to the view of an event. Parameters: the vectors of the categories."""

    numbers: Tensor
    loc: Tensor
    scale: Tensor
    ahead_loc: Tensor
    ahead_scale: Tensor

    def __init__(self, covariates: Sequence[Covariate], horizon: int) -> None:
        super().__init__()
        self.covariates, self.horizon = tuple(covariates), horizon
        self.ahead = ahead(covariates)
        numbers = [number for number, one in enumerate(covariates) if one.kind != "category"]
        self.num_numbers = len(numbers)
        self.categories = [(number, one) for number, one in enumerate(covariates) if one.kind == "category"]
        self.vectors = nn.ModuleList(
            nn.Embedding(len(one.categories) + 1, _vector_width(len(one.categories))) for _, one in self.categories
        )
        self.num_features = 2 * self.num_numbers + sum(_vector_width(len(one.categories)) for _, one in self.categories)
        self.num_ahead = 2 * len(self.ahead) * horizon
        self.num_directions = len(self.ahead)
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int64), persistent=False)
        for name, some in (("", [covariates[number] for number in numbers]), ("ahead_", self.ahead)):
            # Constants of the declaration, not weights: they travel in the configuration.
            self.register_buffer(f"{name}loc", torch.tensor([one.loc for one in some]), persistent=False)
            self.register_buffer(f"{name}scale", torch.tensor([one.scale for one in some]), persistent=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features; those of one covariate share the part before the bracket."""
        numbers = [one.name for one in self.covariates if one.kind != "category"]
        vectors = (f"{one.name}[{n}]" for _, one in self.categories for n in range(_vector_width(len(one.categories))))
        return (*(f"{name}[value]" for name in numbers), *(f"{name}[there]" for name in numbers), *vectors)

    @property
    def ahead_names(self) -> tuple[str, ...]:
        """Names of the features ahead."""
        periods = [f"{one.name}, ahead[{step}" for one in self.ahead for step in range(1, self.horizon + 1)]
        return (*(f"{period}]" for period in periods), *(f"{period} there]" for period in periods))

    def forward(self, view: LagView, x: Tensor | None, future: Tensor | None) -> LagView:
        """Add the covariates of the same events to a view.

        Args:
            view: View of the events; `...` are its leading dimensions.
            x: `[..., C]` float32, NaN = missing; None = all missing.
            future: `[..., F, H]` float32, NaN = missing; None = all missing.
        """
        lead = view.scale.shape[:-1]
        if x is None:
            x = view.scale.new_full((*lead, len(self.covariates)), math.nan)
        features = [view.features]
        if self.num_numbers:
            features += _scaled(x.index_select(-1, self.numbers), self.loc, self.scale)
        for (number, one), vectors in zip(self.categories, self.vectors, strict=True):
            place = x[..., number]
            known = (place >= 1) & (place <= len(one.categories))
            features.append(vectors(torch.where(known, place, float(UNKNOWN)).to(torch.int64)))
        view = view._replace(features=torch.cat(features, dim=-1))
        if not self.ahead:
            return view
        if future is None:
            future = view.scale.new_full((*lead, len(self.ahead), self.horizon), math.nan)
        values, there = _scaled(future, self.ahead_loc.unsqueeze(-1), self.ahead_scale.unsqueeze(-1))
        directions = tuple(values[..., number, :] for number in range(len(self.ahead)))
        seen = torch.cat([values.flatten(-2), there.flatten(-2)], dim=-1)
        return view._replace(directions=(*view.directions, *directions), ahead=seen)


def _scaled(values: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return values relative to the usual one, saturating, 0 where missing; and 1 where there is a value."""
    there = values.abs() <= MAX_ABS_Y  # False for NaN
    distance = torch.where(there, (values - loc) / scale, 0.0)
    return distance / (1 + distance.abs() / _SOFT_LIMIT), there.to(torch.float32)


def _vector_width(categories: int) -> int:
    """Return how many numbers describe one of `categories` categories."""
    return min(_MAX_VECTOR, math.ceil(math.sqrt(categories + 1)))
