"""Tracking brings coverage to its nominal share, keeps quantiles in order, and remembers a bounded number of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.forecasters import small_config
from training.calibration import QuantileTracker, Tracks, anchor_horizons
from training.forecaster import Forecaster

LEVELS = (0.1, 0.5, 0.9)


def empty(tracker: QuantileTracker, streams: int) -> Tracks:
    return Tracks(
        torch.zeros(streams, tracker.places, dtype=torch.int64),
        torch.zeros(streams, tracker.places, tracker.width),
        torch.zeros(streams, len(tracker.horizons), len(LEVELS)),
    )


@pytest.mark.parametrize(
    ("horizon", "expected"), [(1, (1,)), (2, (1, 2)), (5, (1, 2, 5)), (24, (1, 6, 12, 24)), (168, (1, 42, 84, 168))]
)
def test_at_most_four_horizons_are_tracked_the_first_and_the_last_among_them(
    horizon: int, expected: tuple[int, ...]
) -> None:
    assert anchor_horizons(horizon) == expected


def test_memory_does_not_grow_with_the_horizon() -> None:
    places = {horizon: QuantileTracker(horizon, LEVELS).places for horizon in (24, 48, 168, 1_000)}
    assert max(places.values()) <= 1 + 3 * 8


@pytest.mark.parametrize(("quantiles", "limit"), [(LEVELS, 1_024), (tuple(q / 10 for q in range(1, 10)), 2_560)])
def test_calibration_of_a_day_takes_little_state(quantiles: tuple[float, ...], limit: int) -> None:
    forecaster = Forecaster(small_config(horizon=24, quantiles=quantiles))
    sizes = {spec.name: spec.row_bytes for spec in forecaster.state_specs()}
    assert sizes["probes"] + sizes["offsets"] + sizes["clock"] - 16 <= limit


def test_coverage_reaches_its_share_for_a_forecast_that_is_far_too_narrow() -> None:
    rng = np.random.default_rng(0)
    tracker, streams, steps = QuantileTracker(24, LEVELS), 64, 2_000
    tracks, covered = empty(tracker, streams), []
    advances = torch.ones(streams, dtype=torch.bool)
    scale, base = torch.ones(streams, 1), torch.zeros(streams, 1, 3) + torch.tensor([-0.1, 0.0, 0.1]).view(1, 1, 3)
    for t in range(1, steps + 1):
        y = torch.from_numpy(rng.normal(0.5, 1.0, streams).astype(np.float32))
        known = torch.full((streams,), t)
        settled, tracks = tracker.settle(tracks, y, known, advances)
        inside = (settled.published[..., 0] <= y[:, None]) & (y[:, None] <= settled.published[..., 2])
        if t > steps // 2:
            covered.append(torch.where(settled.there, inside.float(), torch.nan))
        own = base.expand(-1, len(tracker.horizons), -1)
        published = tracker.correct(base.expand(-1, 24, -1).transpose(1, 2), tracks.offsets)
        anchors = published[:, :, tracker.anchors - 1].transpose(1, 2)
        tracks = tracker.remember(tracks, own, anchors, scale, known, advances)
    share = torch.stack(covered).nanmean(dim=(0, 1))
    assert ((share - 0.8).abs() < 0.02).all(), share


def test_corrected_quantiles_keep_their_order() -> None:
    tracker = QuantileTracker(8, LEVELS)
    spread = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1).expand(1, 3, 8)
    offsets = torch.zeros(1, len(tracker.horizons), 3)
    offsets[..., 0], offsets[..., 2] = 5.0, -5.0
    assert (tracker.correct(spread, offsets) == 0).all()
    offsets[..., 1] = -2.0
    moved = tracker.correct(spread, offsets)
    assert (moved.diff(dim=1) >= 0).all()
    assert (moved[:, 1] == -2).all()


def test_offsets_between_anchors_lie_on_a_line() -> None:
    tracker = QuantileTracker(24, LEVELS)
    offsets = torch.arange(4.0).view(1, 4, 1).expand(1, 4, 3)
    moved = tracker.correct(torch.zeros(1, 3, 24), offsets)[0, 1]
    np.testing.assert_allclose(moved, np.interp(np.arange(1, 25), tracker.horizons, range(4)), rtol=1e-6)


def test_errors_to_one_side_widen_an_interval_and_do_not_move_it() -> None:
    """Errors far ahead come in runs to one side; an offset that followed them would always come too late."""
    tracker = QuantileTracker(1, LEVELS)
    tracks, one = empty(tracker, 1), torch.ones(1, dtype=torch.bool)
    zeros = torch.zeros(1, 1, 3)
    for t in range(1, 20):
        known = torch.tensor([t])
        _, tracks = tracker.settle(tracks, torch.tensor([5.0]), known, one)
        tracks = tracker.remember(tracks, zeros, zeros, torch.ones(1, 1), known, one)
    low, middle, high = tracks.offsets[0, 0].tolist()
    assert middle == 0.0
    assert low == -high < 0


def test_a_level_without_a_counterpart_goes_its_own_way() -> None:
    tracker = QuantileTracker(1, (0.1, 0.5, 0.6, 0.9))
    mixing = tracker.mixing.numpy()
    np.testing.assert_allclose(mixing[2], [0, 0, 1, 0])
    np.testing.assert_allclose(np.array([0.1, 0.0, 0.3, 0.5]) @ mixing, [-0.2, 0.0, 0.3, 0.2], atol=1e-6)


def test_an_error_without_end_leaves_a_bounded_offset() -> None:
    tracker = QuantileTracker(1, LEVELS)
    tracks, one = empty(tracker, 1), torch.ones(1, dtype=torch.bool)
    zeros = torch.zeros(1, 1, 3)
    for t in range(1, 3_000):
        known = torch.tensor([t])
        _, tracks = tracker.settle(tracks, torch.tensor([1e30]), known, one)
        tracks = tracker.remember(tracks, zeros, zeros, torch.full((1, 1), 1e-20), known, one)
    assert tracks.offsets.isfinite().all()
    assert 10 < float(tracks.offsets.max()) <= 16
