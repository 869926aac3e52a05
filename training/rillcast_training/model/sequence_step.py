"""Many events of each stream at once: the view of a forecaster for catch-up, replay and busy streams.

Owns: which runs of events it takes, and how the work of a step is spread over them. Work that depends on the lags alone
(features, the head, the scores) is done for all events together, as for rows of a batch. Work that depends on the event
before (the cells, the calibrator's offsets) is scanned. Does not know: ONNX, or who puts events into a run.

A run is regular if every event is observed and lies in the period after that of the event before it, the first one
after the stream's newest. For a regular run, outputs and state are those of `Forecaster.step` event by event. For any
other they are undefined, and `regular` is False.

Invariant: the same operations on the same numbers as in the step, row by row. The exported graphs agree bit for bit on
a device on which a row's result does not depend on other rows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast.bundle.bundle import Status
from rillcast.bundle.frequency import parse
from rillcast_training.model.cells import Cell
from rillcast_training.model.features import MAX_ABS_Y
from rillcast_training.model.forecaster import Forecaster
from rillcast_training.model.network_alarms import Judged, NetworkAlarms, judge
from rillcast_training.model.periods import periods_of
from rillcast_training.model.recurrence import scan
from rillcast_training.model.rows import Rows, StepOutputs
from rillcast_training.model.sequence_calibration import RunCalibration
from rillcast_training.model.tails import TailModel, miss_of, outside

CELLS: Final = "cells"
TAILS: Final = "tails"
ALARMS: Final = "alarms"


class RunOutputs(NamedTuple):
    """Outputs of a call for B runs of T events.

    Attributes:
        events: The step's outputs, each `[B, T, ...]`.
        regular: `[B]` bool, whether the run is regular.
    """

    events: StepOutputs
    regular: Tensor


class SequenceStep(nn.Module):
    """`Forecaster.step` for runs of events; shares the forecaster's weights."""

    def __init__(self, forecaster: Forecaster) -> None:
        super().__init__()
        self.forecaster = forecaster
        self.cells = CellsBody(forecaster.cell)
        self.calibration = RunCalibration(forecaster.tracker)
        self.tails = TailsBody(forecaster.tails)
        self.alarms = None if forecaster.alarms is None else AlarmsBody(forecaster.alarms)

    def forward(
        self,
        ds: Tensor,
        y: Tensor,
        rows: Rows,
        calibrate: Tensor,
        x: Tensor | None = None,
        future: Tensor | None = None,
        alarm_interval: Tensor | None = None,
    ) -> tuple[RunOutputs, Rows]:
        """Advance each stream by T events.

        Args:
            ds: `[B, T]` int64, milliseconds since the epoch.
            y: `[B, T]` float32.
            rows: State of the streams.
            calibrate: As in the step.
            x: `[B, T, C]` float32, covariates of the events.
            future: `[B, T, F, H]` float32, covariates known ahead.
            alarm_interval: As in the step.
        """
        forecaster, config = self.forecaster, self.forecaster.config
        streams, length = ds.shape
        periods = periods_of(ds, parse(config.freq))
        newest, age = rows.clock[:, :1], rows.clock[:, 1:2]
        gaps = periods - torch.cat([newest, periods[:, :-1]], dim=1)
        observed = y.abs() <= MAX_ABS_Y
        regular = ((gaps == 1) & observed & (age > 0)).all(dim=1)
        steps = torch.arange(1, length + 1)
        known = ((age - 1).clamp(min=0) + steps).clamp(max=forecaster.most_known)

        # Time comes first from here on, and a row is an event of a stream.
        grid = torch.cat([rows.lags[:, 1:], torch.where(observed, y, 0.0)], dim=1).t()
        offsets = (steps - 1).unsqueeze(1) + torch.arange(config.context)
        windows = grid[offsets].transpose(1, 2).reshape(-1, config.context)
        period, count, gap, seen = (part.t().reshape(-1) for part in (periods, known, gaps, observed))
        value = torch.where(seen, y.t().reshape(-1), 0.0)
        lags = forecaster.features.mask_unknown(windows, count)
        view = forecaster.features(lags, count, period)
        covariates = (None if part is None else part.transpose(0, 1).flatten(0, 1) for part in (x, future))
        view = forecaster.with_covariates(view, *covariates)
        inputs = forecaster.cell_inputs(view, gap.clamp(0, config.max_gap), seen)

        def by_time(tensor: Tensor) -> Tensor:
            return tensor.reshape(length, streams, *tensor.shape[1:])

        cells, (hidden,) = scan(CELLS, self.cells, rows.cells, (by_time(inputs),))
        tracker = forecaster.tracker
        own = forecaster.forecast(hidden.reshape(-1, config.hidden), view).parts()
        calibrated = self.calibration(rows.tracks, tracker.parts_at_anchors(own), value, period, count, calibrate)
        published = tracker.quantiles(tracker.correct(own, calibrated.offsets))
        season_ago = config.context - config.seasons[0]  # in the window before the event
        naive = torch.cat([rows.lags[:, season_ago].unsqueeze(0), by_time(lags[:, season_ago])[:-1]]).reshape(-1)
        resolved = calibrated.resolved
        ends = forecaster.ends(resolved.published)
        miss = miss_of(value, ends)
        of_tails = by_time(miss.t()), by_time(resolved.valid[:, :1])
        (tails,), (return_periods,) = scan(TAILS, self.tails, (rows.tails,), of_tails)
        beyond = outside(miss, return_periods.reshape(-1, 2).t())
        score, anomaly = forecaster.forecast_scores(
            value, resolved.published, view.scale.squeeze(1), resolved.valid, naive=naive, outside=beyond
        )
        status = torch.where(count < config.context, int(Status.WARMING_UP), int(Status.OK)).to(torch.int8)

        alarms, alarm = rows.alarms, None
        if self.alarms is not None and alarms is not None:
            judged = judge(value, ends[1], beyond, resolved.valid[:, 0])
            interval = forecaster.usual_interval(ds) if alarm_interval is None else alarm_interval
            (alarms,), (alarm,) = scan(ALARMS, self.alarms, (alarms,), (by_time(torch.stack(judged, 1)),), (interval,))
            alarm = alarm.reshape(-1, alarm.shape[-1])

        events = StepOutputs(tracker.by_horizon(published), status, score, anomaly, alarm)
        by_stream = StepOutputs(*(by_time(part).transpose(0, 1) for part in events.flat()))
        clock = torch.stack([periods[:, -1], known[:, -1] + 1], dim=1)
        tracks = calibrated.tracks
        following = Rows(clock, by_time(lags)[-1], cells, tracks.pending, tracks.offsets, tails, alarms)
        return RunOutputs(by_stream, regular), following


class CellsBody(nn.Module):
    """One event of the cells: `(*state, inputs) -> (*state, output)`."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, *state_and_inputs: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        state = self.cell.step(state_and_inputs[-1], state_and_inputs[:-1])
        return (*state, self.cell.output(state))


class TailsBody(nn.Module):
    """One event of the tails: `(state, miss, valid) -> (state, periods)`, `[B, ...]` each."""

    def __init__(self, tails: TailModel) -> None:
        super().__init__()
        self.tails = tails

    def forward(self, state: Tensor, miss: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        following, periods = self.tails(state.t(), miss.t(), valid[:, 0])
        return following.t(), periods.t()


class AlarmsBody(nn.Module):
    """One event of the alarms: `(interval, state, judged) -> (state, outputs)`, `[B]` and `[B, ...]`.

    Every event of a regular run has an observation, a period after the event before it.
    """

    def __init__(self, alarms: NetworkAlarms) -> None:
        super().__init__()
        self.alarms = alarms

    def forward(self, interval: Tensor, state: Tensor, judged: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        now = Judged(*judged.unbind(1))
        yes = now.valid >= 0
        following, outputs = self.alarms(state.t(), now, yes, yes, torch.ones_like(now.y), interval)
        return following.t(), outputs.t()
