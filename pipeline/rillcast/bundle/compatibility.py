"""The rule by which a model may replace the serving one without a restart.

Consumers read the forecasts of both models as one stream of records, and the live page, metrics and read API continue
through the change. So both models need the same frequency, horizon, levels, scores and covariates. Any other change
needs a restart, which an operator decides together with the settings.

Several models in one service (`[[models]]`) only need the same covariates.

Owns: which metadata must be equal.
Does not know: registries, states, graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rillcast.bundle.metadata import BundleMetadata
from rillcast.errors import OtherRecordsError, SettingsError

_SAME: Final = ("freq", "horizon", "quantiles", "scores", "covariates")


def require_compatible(serving: BundleMetadata, candidate: BundleMetadata) -> None:
    """Raise unless the candidate may replace the serving model.

    Raises:
        OtherRecordsError: The models differ; the error names the first difference.
    """
    for name in _SAME:
        found, expected = getattr(candidate, name), getattr(serving, name)
        if (
            sorted(found) != sorted(expected) if name == "scores" else found != expected
        ):  # the order of scores has no meaning
            raise OtherRecordsError(f"its {name} is {_shown(found)}, that of {serving.model_id} {_shown(expected)}")


def require_same_covariates(models: Mapping[str, BundleMetadata]) -> None:
    """Raise unless the models of several tables can be served from one input: a record is decoded once for all of them.

    Args:
        models: The models by the name of their table.

    Raises:
        SettingsError: They need other covariates, or these for another number of periods ahead.
    """
    (first, expected), *others = models.items()
    for name, found in others:
        ahead = bool(found.known_ahead) and found.horizon != expected.horizon
        if found.covariates != expected.covariates or ahead:
            raise SettingsError(
                f"models.{name} has the covariates {_shown(found.covariates)} for {found.horizon} periods, "
                f"models.{first} {_shown(expected.covariates)} for {expected.horizon}; serve models with other "
                f"covariates in a service of their own"
            )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(str(getattr(each, "name", each)) for each in value) + "]"
    return str(value)
