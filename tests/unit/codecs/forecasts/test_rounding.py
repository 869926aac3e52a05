from __future__ import annotations

import json

import numpy as np
import pytest

from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder, make_row_encoder
from rillcast.codecs.forecasts.rounding import Decimals, rounded
from rillcast.codecs.forecasts.selection import Selection
from rillcast.settings import Settings
from tests.support.toy import ToyGraph

LEVELS = (0.05, 0.1, 0.5, 0.9, 0.95)


def forecasts(n: int = 400, horizon: int = 3) -> np.ndarray:
    """Return sorted forecasts of all sizes: widths from 1e-6 to 1e8 around values from 1e-3 to 1e10."""
    random = np.random.default_rng(5)
    size, width = 10 ** random.uniform(-3, 10, (n, 1, 1)), 10 ** random.uniform(-6, 8, (n, horizon, 1))
    return np.sort(size + width * random.normal(size=(n, horizon, len(LEVELS))), axis=2).astype(np.float32)


def test_auto_stays_within_a_two_thousandth_of_the_interval_and_levels_never_cross() -> None:
    given = forecasts()
    found = rounded(given, LEVELS, "auto")
    width = given[:, :, 3].astype(float) - given[:, :, 1]
    moved = np.abs(found.astype(float) - given).max(axis=2)
    spacing = np.spacing(np.abs(given).max(axis=2)) / 2  # the nearest float32 to the decimal
    assert (moved <= width / 2000 + spacing).all()
    assert (np.diff(found, axis=2) >= 0).all()
    assert found.dtype == np.float32


def test_auto_keeps_no_digit_below_a_thousandth_of_the_interval() -> None:
    given = np.array([[[97.12345, 98.76543, 100.98765, 123.45678, 130.11111]]], np.float32)  # width 24.7: unit 0.01
    expected = np.array([[[97.12, 98.77, 100.99, 123.46, 130.11]]], np.float32)
    assert rounded(given, LEVELS, "auto").tolist() == expected.tolist()
    exact = np.array([[[0, 0, 500, 1000, 1001]]], np.float32) + 0.375  # width 1000: unit 1
    assert rounded(exact, LEVELS, "auto").tolist() == [[[0, 0, 500, 1000, 1001]]]


@pytest.mark.parametrize("value", [7.123456, np.nan, np.inf, 3e38, 1e-45])
def test_a_step_without_a_width_keeps_all_digits(value: float) -> None:
    given = np.full((2, 2, len(LEVELS)), value, np.float32)
    given[1, 1] = [0, 1.23456, 2, 3, 4]
    found = rounded(given, LEVELS, "auto")
    np.testing.assert_array_equal(found[0], given[0])
    assert found[1, 1, 1] == np.float32(1.235)
    single = given[:, :, :1]
    np.testing.assert_array_equal(rounded(single, (0.5,), "auto"), single)


def test_rounding_again_and_alone_gives_the_same_bits() -> None:
    given = forecasts()
    found = rounded(given, LEVELS, "auto")
    alone = np.concatenate([rounded(given[row : row + 1], LEVELS, "auto") for row in range(len(given))])
    np.testing.assert_array_equal(alone.view(np.int32), found.view(np.int32))
    np.testing.assert_array_equal(rounded(found, LEVELS, 3), rounded(rounded(found, LEVELS, 3), LEVELS, 3))


@pytest.mark.parametrize("decimals", [0, 3, 20])
def test_many_places_of_a_large_number_are_no_null(decimals: Decimals) -> None:
    given = np.full((1, 2, len(LEVELS)), 3e38, np.float32)
    np.testing.assert_array_equal(rounded(given, LEVELS, decimals), given)


def test_nested_records_and_rows_have_the_rounded_numbers() -> None:
    metadata = ToyGraph().metadata().model_copy(update={"quantiles": LEVELS, "horizon": 3, "model_id": "abc"})
    given, n = forecasts(20), 20
    places = np.zeros(n, np.int64), np.arange(n)
    columns = ForecastColumns(["a"] * n, np.arange(n), np.zeros(n, np.int8), given, None, *places)
    expected = rounded(given, LEVELS, "auto")
    nested = [json.loads(value) for value in make_encoder("json", metadata, "auto").encode(columns)[1]]
    found = np.array([list(record["quantiles"].values()) for record in nested], np.float32).transpose(0, 2, 1)
    np.testing.assert_array_equal(found, expected)
    rows = [json.loads(value) for value in make_row_encoder(Selection.of(metadata), "auto").encode(columns)[1]]
    flat = np.array([[row["q5"], row["q10"], row["q50"], row["q90"], row["q95"]] for row in rows], np.float32)
    np.testing.assert_array_equal(flat.reshape(expected.shape), expected)


@pytest.mark.parametrize(("given", "read"), [("auto", "auto"), ("3", 3), (None, "full"), ("full", "full")])
def test_the_setting_takes_words_numbers_and_the_null_of_older_files(given: object, read: Decimals) -> None:
    assert Settings.model_validate({"model": "m", "output": {"decimals": given}}).output.decimals == read
