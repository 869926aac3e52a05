"""Models of one service need the same covariates, because a record is decoded once for all of them."""

from __future__ import annotations

import pytest

from rillcast.bundle.bundle import BundleMetadata
from rillcast.bundle.compatibility import require_same_covariates
from rillcast.bundle.covariates import Covariate
from rillcast.errors import SettingsError
from tests.support.live_views import metadata

PRICE, HEAT = Covariate("price", "known"), Covariate("heat", "past")


def model(*covariates: Covariate, horizon: int = 3) -> BundleMetadata:
    return metadata().model_copy(update={"covariates": covariates, "horizon": horizon})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (model(), model(horizon=7)),
        (model(PRICE, HEAT), model(PRICE, HEAT)),
        (model(HEAT), model(HEAT, horizon=7)),  # nothing is known ahead, so horizons may differ
    ],
)
def test_the_same_covariates_can_be_served_together(first: BundleMetadata, second: BundleMetadata) -> None:
    require_same_covariates({"hours": first, "days": second})


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (model(), model(HEAT), "models.days has the covariates [heat] for 3 periods, models.hours [] for 3"),
        (model(PRICE), model(HEAT), "models.days has the covariates [heat]"),
        (model(PRICE, HEAT), model(HEAT, PRICE), "[heat, price]"),
        (model(PRICE), model(PRICE, horizon=7), "[price] for 7 periods, models.hours [price] for 3"),
    ],
)
def test_other_covariates_or_others_known_ahead_are_refused(
    first: BundleMetadata, second: BundleMetadata, said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        require_same_covariates({"hours": first, "days": second})
    assert said in str(refused.value)
    assert "in a service of their own" in str(refused.value)
