from __future__ import annotations

import numpy as np
import torch

from tests.support.forecasters import HOUR_MS, random_forecaster, small_config


def test_the_naive_score_is_the_distance_from_the_value_of_a_season_ago_in_the_units_of_the_bias() -> None:
    config = small_config(seasons=(4, 9))
    forecaster = random_forecaster(config)
    names = forecaster.scores
    y = np.random.default_rng(0).normal(10, 3, 40).astype(np.float32)
    rows = forecaster.initial_rows(1)
    middle = list(config.quantiles).index(0.5)
    forecast = torch.tensor(0.0)
    compared = 0
    with torch.no_grad():
        for hour, value in enumerate(y):
            outputs, rows = forecaster.step(torch.tensor([hour * HOUR_MS]), torch.tensor([value]), rows)
            bias, naive = (float(outputs.score[0, names.index(name)]) for name in ("bias", "naive"))
            assert np.isnan(bias) == np.isnan(naive)
            if hour > config.context:
                scale = (float(forecast) - float(value)) / bias
                assert np.isclose(naive * scale, abs(value - y[hour - 4]), rtol=1e-3)
                compared += 1
            forecast = outputs.forecast[0, 0, middle]
    assert compared > 20
