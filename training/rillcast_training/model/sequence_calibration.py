"""The calibrator over runs of events: `QuantileTracker` with as little as possible in a loop.

Owns: where in a run a due forecast was made, and what is pending at its end. Does not know: the network, or which runs
are taken (`rillcast_training.model.sequence_step`).

Only the offsets depend on the event before (`QuantileTracker.learn`, eight operators), so only they are scanned. The
rest is known for all events at once, because the periods of a regular run follow each other. The forecast that is due
at anchor k was made `ago` events earlier: in the run or, before it, as a pending one.

Invariant: the same operations on the same numbers as event by event. The two agree bit for bit on a device on which a
row's result does not depend on other rows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.calibration import Parts, QuantileTracker, Resolved, Tracks
from rillcast_training.model.recurrence import scan

OFFSETS: Final = "offsets"


class Calibrated(NamedTuple):
    """Result of a run of the calibrator; N = T B events, time first.

    Attributes:
        offsets: `[N, Q, K]` after each event, times `calibrate`.
        resolved: Forecasts that each event resolved.
        tracks: State after the last event.
    """

    offsets: Tensor
    resolved: Resolved
    tracks: Tracks


class RunCalibration(nn.Module):
    """No parameters. See the module's docstring."""

    ago: Tensor
    age: Tensor
    anchor: Tensor

    def __init__(self, tracker: QuantileTracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.learning = LearningBody(tracker)
        entries = torch.arange(tracker.entries)
        anchor = (tracker.issued.unsqueeze(2) == entries).any(dim=0).to(torch.int64).argmax(dim=0)
        for name, table in {
            "ago": _since_written(tracker.issued, tracker.due, torch.arange(tracker.num_anchors), first=1),
            "age": _since_written(tracker.issued, entries.expand(tracker.repeat, -1), anchor, first=0),
            "anchor": anchor,
        }.items():
            self.register_buffer(name, table.contiguous(), persistent=False)

    def forward(
        self, tracks: Tracks, own: Parts, y: Tensor, period: Tensor, known: Tensor, calibrate: Tensor
    ) -> Calibrated:
        """Take streams through their runs.

        Args:
            tracks: State of the B streams.
            own: `[N, ...]` the model's forecasts at the anchors, event by event.
            y: `[N]` observations.
            period: `[N]` int64; those of a stream follow each other, and its newest one before the run.
            known: `[N]` int64, periods known since the segment began.
            calibrate: `[]`, as in the step.
        """
        tracker, streams = self.tracker, tracks.pending.shape[0]
        event = torch.arange(period.shape[0]).unsqueeze(1)
        step = torch.div(event, streams, rounding_mode="floor")
        stream = event - step * streams
        anchors = torch.arange(tracker.num_anchors)

        def made_in_run(step: Tensor, stream: Tensor, anchor: Tensor) -> Tensor:
            """Return the row, after those of the pending forecasts, of a forecast made in the run."""
            return streams * tracker.entries + (step * streams + stream) * tracker.num_anchors + anchor

        residue = torch.remainder(period, tracker.repeat)
        ago, entry = self.ago[residue], tracker.due[residue]
        due = torch.where(step >= ago, made_in_run(step - ago, stream, anchors), stream * tracker.entries + entry)

        levels, each = tracker.num_levels, tracker.num_levels * tracker.num_anchors
        before, labels = tracker.rows(tracks.pending), tracker.labels(own.scale, period)
        quantiles = tracker.quantiles(own)
        own_before = torch.cat([before[:, :levels], before[:, 2 * levels :]], dim=1)
        judged = torch.cat([own_before, tracker.records(quantiles, labels)])[due.reshape(-1)]
        forecasts, scale, stamp = torch.split(
            tracker.columns(judged, levels + 2), [each, tracker.num_anchors, tracker.num_anchors], dim=1
        )
        valid = tracker.are_valid(stamp, period, known)
        by_step = tuple(
            part.reshape(-1, streams, each)
            for part in (tracker.errors(forecasts, scale, y), tracker.for_each_level(valid))
        )
        (offsets,), (after_each,) = scan(OFFSETS, self.learning, (tracks.offsets.reshape(-1, each),), by_step)
        corrections = calibrate * after_each.reshape(-1, levels, tracker.num_anchors)

        published = tracker.quantiles(tracker.correct(own, corrections, at_anchors=True))
        rows = torch.cat([before, tracker.records(quantiles, published, labels)])
        resolved = Resolved(valid, tracker.columns(rows[due.reshape(-1)][:, levels : 2 * levels], levels))

        age = self.age[residue[-streams:]]
        last, number = step[-streams:], stream[-streams:]
        newest = torch.where(
            last >= age,
            made_in_run(last - age, number, self.anchor),
            number * tracker.entries + torch.arange(tracker.entries),
        )
        pending = rows[newest.reshape(-1)].reshape(-1, tracker.entries, tracker.width)
        return Calibrated(corrections, resolved, Tracks(pending, offsets.reshape(-1, levels, tracker.num_anchors)))


class LearningBody(nn.Module):
    """One event of learning: `(offsets, errors, valid) -> (offsets, offsets)`."""

    def __init__(self, tracker: QuantileTracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(self, offsets: Tensor, errors: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        learnt = self.tracker.learn(offsets, errors, valid)
        return learnt, learnt


def _since_written(written: Tensor, wanted: Tensor, anchor: Tensor, *, first: int) -> Tensor:
    """Return `[R, J]` int64: how many periods ago an entry was written last, if every period has an event.

    Args:
        written: `[R, K]`, entries that are written, by period modulo R.
        wanted: `[R, J]`, entries that are asked for, by period modulo R.
        anchor: `[J]`, the anchor of each of them.
        first: 0 to count a write in the period itself, 1 to leave it out.
    """
    repeat = written.shape[0]
    back = torch.arange(first, first + repeat)
    periods = torch.remainder(torch.arange(repeat).unsqueeze(1) - back, repeat)
    found = written[periods][:, :, anchor] == wanted.unsqueeze(1)
    return first + found.to(torch.int64).argmax(dim=1)
