"""Over a run of events the calibrator settles, learns and remembers what it does event by event."""

from __future__ import annotations

import pytest
import torch

from rillcast_training.model.calibration import Parts, QuantileTracker, Settled, Tracks
from rillcast_training.model.sequence_calibration import RunCalibration

STREAMS = 3


def event_by_event(
    tracker: QuantileTracker, tracks: Tracks, own: list[Parts], y: torch.Tensor, slot: torch.Tensor, known: torch.Tensor
) -> tuple[list[torch.Tensor], list[Settled], Tracks]:
    always = torch.ones(STREAMS, dtype=torch.bool)
    offsets, settled = [], []
    for t, parts in enumerate(own):
        due, tracks = tracker.settle(tracks, y[t], slot[t], known[t], always)
        published = tracker.correct(parts, tracks.offsets, at_anchors=True)
        tracks = tracker.remember(tracks, parts, published, slot[t])
        offsets.append(tracks.offsets)
        settled.append(due)
    return offsets, settled, tracks


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
        torch.zeros(STREAMS, tracker.places, tracker.width), torch.zeros(STREAMS, len(levels), tracker.num_anchors)
    )
    # Streams of different ages at different slots, and between the runs gaps that leave forecasts of before them.
    slot, known = torch.tensor([7, 1_000_003, -40]), torch.tensor([1, 400, 3])
    settled_ever = 0
    for events, gap in [(1, 0), (3, 1), (40, 2), (200, 5), (7, 0), (2, 0), (90, 0)]:
        slots = slot + gap + 1 + torch.arange(events).unsqueeze(1)
        knowns = known + gap + 1 + torch.arange(events).unsqueeze(1)
        slot, known = slots[-1], knowns[-1]
        own, y = forecasts(tracker, events, generator), torch.randn(events, STREAMS, generator=generator)
        offsets, settled, one = event_by_event(tracker, one, own, y, slots, knowns)
        together = Parts(*(torch.cat(parts) for parts in zip(*own, strict=True)))
        found = runs(many, together, y.reshape(-1), slots.reshape(-1), knowns.reshape(-1), torch.tensor(1.0))
        many = found.tracks
        there = torch.cat([due.there for due in settled])
        settled_ever += int(there.sum())
        assert torch.equal(found.settled.there, there)
        each = tracker.for_each_level(there)
        published = torch.cat([due.published for due in settled])
        torch.testing.assert_close(found.settled.published[each], published[each])
        torch.testing.assert_close(found.offsets, torch.cat(offsets))
        for a, b in zip(many, one, strict=True):
            torch.testing.assert_close(a, b)
    assert settled_ever > 100


def test_corrections_that_are_switched_off_are_learnt_all_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    tracker = QuantileTracker(5, (0.1, 0.5, 0.9))
    tracks = Tracks(torch.zeros(STREAMS, tracker.places, tracker.width), torch.zeros(STREAMS, 3, tracker.num_anchors))
    own = Parts(*(torch.cat(parts) for parts in zip(*forecasts(tracker, 50, generator), strict=True)))
    slots = torch.arange(100, 150).repeat_interleave(STREAMS)
    y = torch.randn(50 * STREAMS, generator=generator)
    on, off = (RunCalibration(tracker)(tracks, own, y, slots, slots, torch.tensor(share)) for share in (1.0, 0.0))
    assert torch.equal(on.tracks.offsets, off.tracks.offsets)
    assert on.tracks.offsets.abs().max() > 0
    assert not off.offsets.any()
