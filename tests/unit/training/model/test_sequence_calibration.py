"""The calibrator over a run of events equals the calibrator event by event."""

from __future__ import annotations

import pytest
import torch

from rillcast_training.model.calibration import Parts, QuantileTracker, Resolved, Tracks
from rillcast_training.model.sequence_calibration import RunCalibration

STREAMS = 3


def event_by_event(
    tracker: QuantileTracker,
    tracks: Tracks,
    own: list[Parts],
    y: torch.Tensor,
    period: torch.Tensor,
    known: torch.Tensor,
) -> tuple[list[torch.Tensor], list[Resolved], Tracks]:
    always = torch.ones(STREAMS, dtype=torch.bool)
    offsets, resolved = [], []
    for t, parts in enumerate(own):
        due, tracks = tracker.resolve(tracks, y[t], period[t], known[t], always)
        published = tracker.quantiles(tracker.correct(parts, tracks.offsets, at_anchors=True))
        tracks = tracker.remember(tracks, parts, published, period[t])
        offsets.append(tracks.offsets)
        resolved.append(due)
    return offsets, resolved, tracks


def forecasts(tracker: QuantileTracker, events: int, generator: torch.Generator) -> list[Parts]:
    anchors, levels = tracker.num_anchors, tracker.num_levels
    return [
        Parts(
            torch.randn(STREAMS, anchors, generator=generator),
            torch.rand(STREAMS, (levels - 1) * anchors, generator=generator),
            0.5 + torch.rand(STREAMS, 1, generator=generator),
        )
        for _ in range(events)
    ]


@pytest.mark.parametrize("horizon", [1, 2, 5, 24, 48, 168])
@pytest.mark.parametrize("levels", [(0.5,), (0.1, 0.5, 0.9), (0.1, 0.5, 0.6, 0.9)])
def test_a_run_is_its_events(horizon: int, levels: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(horizon)
    tracker = QuantileTracker(horizon, levels)
    runs = RunCalibration(tracker)
    one = many = Tracks(
        torch.zeros(STREAMS, tracker.entries, tracker.width), torch.zeros(STREAMS, len(levels), tracker.num_anchors)
    )
    # Streams of different ages at different periods, and between the runs gaps that leave forecasts of before them.
    period, known = torch.tensor([7, 1_000_003, -40]), torch.tensor([1, 400, 3])
    resolved_ever = 0
    for events, gap in [(1, 0), (3, 1), (40, 2), (200, 5), (7, 0), (2, 0), (90, 0)]:
        periods = period + gap + 1 + torch.arange(events).unsqueeze(1)
        knowns = known + gap + 1 + torch.arange(events).unsqueeze(1)
        period, known = periods[-1], knowns[-1]
        own, y = forecasts(tracker, events, generator), torch.randn(events, STREAMS, generator=generator)
        offsets, resolved, one = event_by_event(tracker, one, own, y, periods, knowns)
        together = Parts(*(torch.cat(parts) for parts in zip(*own, strict=True)))
        found = runs(many, together, y.reshape(-1), periods.reshape(-1), knowns.reshape(-1), torch.tensor(1.0))
        many = found.tracks
        there = torch.cat([due.valid for due in resolved])
        resolved_ever += int(there.sum())
        assert torch.equal(found.resolved.valid, there)
        each = tracker.for_each_level(there)
        published = torch.cat([due.published for due in resolved])
        torch.testing.assert_close(found.resolved.published[each], published[each])
        torch.testing.assert_close(found.offsets, torch.cat(offsets))
        for a, b in zip(many, one, strict=True):
            torch.testing.assert_close(a, b)
    assert resolved_ever > 100


def test_corrections_that_are_switched_off_are_learnt_all_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    tracker = QuantileTracker(5, (0.1, 0.5, 0.9))
    tracks = Tracks(torch.zeros(STREAMS, tracker.entries, tracker.width), torch.zeros(STREAMS, 3, tracker.num_anchors))
    own = Parts(*(torch.cat(parts) for parts in zip(*forecasts(tracker, 50, generator), strict=True)))
    periods = torch.arange(100, 150).repeat_interleave(STREAMS)
    y = torch.randn(50 * STREAMS, generator=generator)
    on, off = (RunCalibration(tracker)(tracks, own, y, periods, periods, torch.tensor(share)) for share in (1.0, 0.0))
    assert torch.equal(on.tracks.offsets, off.tracks.offsets)
    assert on.tracks.offsets.abs().max() > 0
    assert not off.offsets.any()
