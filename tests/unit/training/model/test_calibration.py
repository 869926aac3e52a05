"""Tracking brings coverage to its nominal share, keeps quantiles in order, and stores a bounded number of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rillcast_training.model.calibration import Parts, QuantileTracker, Tracks, anchor_horizons
from rillcast_training.model.forecaster import Forecaster
from tests.support.forecasters import small_config

LEVELS = (0.1, 0.5, 0.9)


def empty(tracker: QuantileTracker, streams: int) -> Tracks:
    return Tracks(
        torch.zeros(streams, tracker.entries, tracker.width),
        torch.zeros(streams, tracker.num_levels, tracker.num_anchors),
    )


def forecast(tracker: QuantileTracker, streams: int, distance: float, scale: float = 1.0) -> Parts:
    """The same for every horizon: 0, and `distance` on either side of it."""
    levels = tracker.num_levels - 1
    return Parts(
        torch.zeros(streams, tracker.horizon),
        torch.full((streams, levels * tracker.horizon), distance),
        torch.full((streams, 1), scale),
    )


@pytest.mark.parametrize(
    ("horizon", "expected"), [(1, (1,)), (2, (1, 2)), (5, (1, 2, 5)), (24, (1, 6, 12, 24)), (168, (1, 42, 84, 168))]
)
def test_at_most_four_horizons_are_tracked_the_first_and_the_last_among_them(
    horizon: int, expected: tuple[int, ...]
) -> None:
    assert anchor_horizons(horizon) == expected


def test_memory_does_not_grow_with_the_horizon() -> None:
    entries = {horizon: QuantileTracker(horizon, LEVELS).entries for horizon in (24, 48, 168, 1_000)}
    assert max(entries.values()) <= 1 + 3 * 8


@pytest.mark.parametrize(("quantiles", "limit"), [(LEVELS, 1_024), (tuple(q / 10 for q in range(1, 10)), 2_560)])
def test_calibration_of_a_day_takes_little_state(quantiles: tuple[float, ...], limit: int) -> None:
    forecaster = Forecaster(small_config(horizon=24, quantiles=quantiles))
    sizes = {spec.name: spec.row_bytes for spec in forecaster.state_specs()}
    assert sizes["probes"] + sizes["offsets"] <= limit


def test_coverage_reaches_its_share_for_a_forecast_that_is_far_too_narrow() -> None:
    rng = np.random.default_rng(0)
    tracker, streams, steps = QuantileTracker(24, LEVELS), 64, 2_000
    tracks, covered = empty(tracker, streams), []
    advances = torch.ones(streams, dtype=torch.bool)
    own = forecast(tracker, streams, 0.1)
    for t in range(1, steps + 1):
        y = torch.from_numpy(rng.normal(0.5, 1.0, streams).astype(np.float32))
        period = torch.full((streams,), t)
        resolved, tracks = tracker.resolve(tracks, y, period, period, advances)
        low, _, high = resolved.published.chunk(3, dim=1)
        if t > steps // 2:
            covered.append(torch.where(resolved.valid, ((low <= y[:, None]) & (y[:, None] <= high)).float(), torch.nan))
        published = tracker.quantiles(tracker.correct(own, tracks.offsets))[:, tracker.quantiles_at_anchors]
        tracks = tracker.remember(tracks, tracker.parts_at_anchors(own), published, period)
    share = torch.stack(covered).nanmean(dim=(0, 1))
    assert ((share - 0.8).abs() < 0.02).all(), share


def test_corrected_quantiles_keep_their_order() -> None:
    tracker = QuantileTracker(8, LEVELS)
    offsets = torch.zeros(1, 3, tracker.num_anchors)
    offsets[:, 0], offsets[:, 2] = 5.0, -5.0
    assert (tracker.correct(forecast(tracker, 1, 1.0), offsets).distances == 0).all()
    levels = (0.1, 0.2, 0.5, 0.8, 0.9)
    tracker = QuantileTracker(8, levels)
    offsets = torch.zeros(1, 5, tracker.num_anchors)
    offsets[:, 1], offsets[:, 3] = -5.0, 5.0  # beyond the outer levels
    moved = tracker.quantiles(tracker.correct(forecast(tracker, 1, 1.0), offsets)).reshape(5, 8)
    assert (moved.diff(dim=0) >= 0).all()
    assert moved[:, 0].tolist() == [-6, -6, 0, 6, 6]


def test_a_middle_level_that_is_no_median_moves_and_takes_no_other_with_it() -> None:
    tracker = QuantileTracker(4, (0.1, 0.6, 0.9))
    offsets = torch.zeros(1, 3, tracker.num_anchors)
    offsets[:, 1] = 0.5
    moved = tracker.quantiles(tracker.correct(forecast(tracker, 1, 1.0, scale=2.0), offsets)).reshape(3, 4)
    assert moved[:, 0].tolist() == [-2, 1, 2]


def test_offsets_between_anchors_lie_on_a_line() -> None:
    tracker = QuantileTracker(24, LEVELS)
    offsets = torch.arange(4.0) * torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1)
    moved = tracker.correct(forecast(tracker, 1, 0.0), offsets).distances[0, 24:]
    np.testing.assert_allclose(moved, np.interp(np.arange(1, 25), tracker.horizons, range(4)), rtol=1e-6)


def test_a_forecast_of_another_segment_is_not_resolved() -> None:
    tracker, one = QuantileTracker(4, LEVELS), torch.ones(1, dtype=torch.bool)
    own = tracker.parts_at_anchors(forecast(tracker, 1, 1.0))
    tracks = tracker.remember(empty(tracker, 1), own, tracker.quantiles(own), torch.tensor([10]))
    y, period = torch.tensor([0.0]), torch.tensor([11])
    assert tracker.resolve(tracks, y, period, torch.tensor([2]), one)[0].valid[0].tolist() == [True, False, False]
    assert not tracker.resolve(tracks, y, period, torch.tensor([1]), one)[0].valid.any()


def test_an_empty_entry_is_never_taken_for_a_forecast() -> None:
    tracker, one = QuantileTracker(24, LEVELS), torch.ones(1, dtype=torch.bool)
    for period in (-3, 0, 1, 12, 23, 24, (1 << 22) - 1, 1 << 22):
        known = torch.tensor([1_000])
        resolved, tracks = tracker.resolve(empty(tracker, 1), torch.tensor([5.0]), torch.tensor([period]), known, one)
        assert not resolved.valid.any()
        assert (tracks.offsets == 0).all()


@pytest.mark.parametrize("horizon", [1, 7, 24, 48, 168])
def test_a_forecast_of_the_last_period_before_a_new_entry_is_found_when_it_is_due(horizon: int) -> None:
    """Each anchor is resolved regularly: every period, or once in as many periods as share an entry."""
    tracker, one = QuantileTracker(horizon, LEVELS), torch.ones(1, dtype=torch.bool)
    own, tracks, found = tracker.parts_at_anchors(forecast(tracker, 1, 1.0)), empty(tracker, 1), []
    for t in range(1, 6 * horizon + 1):
        period = torch.tensor([t])
        resolved, tracks = tracker.resolve(tracks, torch.tensor([0.0]), period, period, one)
        tracks = tracker.remember(tracks, own, tracker.quantiles(own), period)
        found.append(resolved.valid[0])
    resolved_per_period = torch.stack(found)[2 * horizon :].float().mean(0)
    shared = [1 if h <= 8 else 2 ** int(np.ceil(np.log2((h - 1) / 7))) for h in tracker.horizons]
    np.testing.assert_allclose(resolved_per_period, [1 / s for s in shared], atol=0.5 / horizon)


def test_errors_to_one_side_widen_an_interval_and_do_not_move_it() -> None:
    """Errors far ahead come in runs to one side; an offset that followed them would always come too late."""
    tracker = QuantileTracker(1, LEVELS)
    tracks, one, own = empty(tracker, 1), torch.ones(1, dtype=torch.bool), forecast(tracker, 1, 0.0)
    for t in range(1, 20):
        period = torch.tensor([t])
        _, tracks = tracker.resolve(tracks, torch.tensor([5.0]), period, period, one)
        tracks = tracker.remember(tracks, own, tracker.quantiles(own), period)
    low, middle, high = tracks.offsets[0, :, 0].tolist()
    assert middle == 0.0
    assert low == -high < 0


def test_a_level_without_a_counterpart_goes_its_own_way() -> None:
    tracker = QuantileTracker(1, (0.1, 0.5, 0.6, 0.9))
    mixing = -tracker.learning.numpy() / tracker.largest_rate
    np.testing.assert_allclose(mixing[2], [0, 0, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(np.array([0.1, 0.0, 0.3, 0.5]) @ mixing, [-0.2, 0.0, 0.3, 0.2], atol=1e-6)


def test_an_error_without_end_leaves_a_bounded_offset() -> None:
    tracker = QuantileTracker(1, LEVELS)
    tracks, one, own = empty(tracker, 1), torch.ones(1, dtype=torch.bool), forecast(tracker, 1, 0.0, scale=1e-20)
    for t in range(1, 3_000):
        period = torch.tensor([t])
        _, tracks = tracker.resolve(tracks, torch.tensor([1e30]), period, period, one)
        tracks = tracker.remember(tracks, own, tracker.quantiles(own), period)
    assert bool(tracks.offsets.isfinite().all())
    assert 10 < float(tracks.offsets.max()) <= 16
