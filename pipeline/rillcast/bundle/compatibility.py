"""The rule by which a model may replace the serving one without a restart.

Consumers read the forecasts of both models as one stream of records, and the live page, metrics and read API continue
through the change. So both models need the same frequency, horizon, levels, scores and covariates. Any other change
needs a restart, which an operator decides together with the settings.

Owns: which metadata must be equal.
Does not know: registries, states, graphs.
"""

from __future__ import annotations

from typing import Final

from rillcast.bundle.metadata import BundleMetadata
from rillcast.errors import OtherRecordsError

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


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(str(getattr(each, "name", each)) for each in value) + "]"
    return str(value)
