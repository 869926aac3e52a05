"""The forecaster: one module, two views of it, `forward` over sequences and `step` over state rows.

Owns: the semantics of an event (late, repeated, missing, after a gap) and the state of a stream. Does not know: files,
training, ONNX (`rillcast_training.export.bundle` traces `step`), or where rows are stored.

State of a stream, one row each, in this order; a row of zeros is a stream never seen:
    clock    int64 [2]       newest period; periods known since the segment began plus one, bounded (0 = never seen)
    lags     float32 [L]     values by period, newest last, in the stream's unit (rillcast_training.model.lags)
    hidden   float32 [..]    the cells' state, layers next to each other; other cells name others (`cell` of an LSTM)
    probes   float32 [E, W]  pending forecasts (rillcast_training.model.calibration)
    offsets  float32 [Q, K]  the online correction of each quantile at K horizons, in units of the scale
    tails    float32 [7]     the tails beyond the outermost quantiles (rillcast_training.model.tails)
    alarms   float32 [22]    with `alarms`: the evidence and the alarm (rillcast_training.model.network_alarms)

Segment: events of a stream between two restarts. A gap beyond `max_gap` restarts the stream.

Invariants: an event costs one cell step, after a gap of any length; rows do not affect each other; quantiles never
cross (each is its neighbour plus something that is not negative); the forecast is a function of the state after the
event, and of its covariates if there are any. So a repeated or late event, which leaves the state unchanged, brings the
same forecast again. `forward` over a segment's advancing events gives the same forecasts as `step` by `step` without
online calibration (tests/property/test_step_equals_sequence.py). Training trains all time steps of a sequence at once:
the forking sequences of Wen et al. (2017), A multi-horizon quantile recurrent forecaster.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast.bundle.alarms import ONE_A_WEEK, slots_per_alarm
from rillcast.bundle.bundle import StateSpec
from rillcast.bundle.covariates import Covariate
from rillcast.bundle.covariates import check as check_covariates
from rillcast.bundle.frequency import parse
from rillcast_training.model.alarms import WIDTH as ALARMS
from rillcast_training.model.calibration import Parts, QuantileTracker
from rillcast_training.model.cells import make_cell
from rillcast_training.model.covariates import CovariateFeatures
from rillcast_training.model.features import MAX_ABS_Y, FeatureConfig, LagFeatures, LagView
from rillcast_training.model.head import QuantileHead
from rillcast_training.model.lags import FILLS, SEASON, LagWindow
from rillcast_training.model.network_alarms import NetworkAlarms, judge
from rillcast_training.model.periods import periods_of
from rillcast_training.model.precision import mixed
from rillcast_training.model.rows import Rows, StepOutputs
from rillcast_training.model.scores import ForecastScores
from rillcast_training.model.status import status_of
from rillcast_training.model.tails import WIDTH as TAILS
from rillcast_training.model.tails import TailModel, miss_of, outside

_EVENT_FEATURES: Final = 2


@dataclass(frozen=True, slots=True)
class ForecasterConfig:
    """Everything that fixes the shape of a forecaster.

    Attributes:
        freq: Frequency, such as `1h` or `1mo`.
        horizon: Periods ahead, H.
        quantiles: Increasing levels in (0, 1), Q of them.
        seasons: Main season in periods, and optionally a longer one.
        context: Length of the lag window in periods, L; a stream is warm when it knows as many periods.
        max_gap: Longest gap, in periods, that keeps the state of a stream; at most `context`.
        cell: A name of `rillcast_training.model.cells.CELLS`.
        hidden: Width of a layer.
        layers: Recurrent layers.
        calendar: Whether the positions in day, week and year are inputs.
        dropout: Share of the cells' inputs and of the head's that is left out at random in training.
        covariates: Covariates in the order of the inputs; see `rillcast_training.model.covariates`.
        alarms: Whether the step says when alarms of a stream open and close. It has no part in training.
        fill: What the lags hold for a period without an observation, one of `rillcast_training.model.lags.FILLS`; that
            of bundles that do not say is the default.
    """

    freq: str
    horizon: int
    quantiles: tuple[float, ...]
    seasons: tuple[int, ...]
    context: int
    max_gap: int
    cell: str = "gru"
    hidden: int = 64
    layers: int = 1
    calendar: bool = True
    dropout: float = 0.0
    covariates: tuple[Covariate, ...] = ()
    alarms: bool = False
    fill: str = SEASON

    def __post_init__(self) -> None:
        check_covariates(self.covariates)
        if any(not 0 < q < 1 for q in self.quantiles) or any(b <= a for a, b in itertools.pairwise(self.quantiles)):
            raise ValueError(f"quantile levels must increase strictly within (0, 1), got {list(self.quantiles)}")
        if not self.quantiles or min(self.horizon, self.hidden, self.layers) < 1:
            raise ValueError("a forecaster needs at least one quantile, one step of horizon, one unit and one layer")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} must lie in 0 to below 1")
        if self.fill not in FILLS:
            raise ValueError(f"fill {self.fill!r} must be one of {', '.join(FILLS)}")
        if not 1 <= self.max_gap <= self.context:
            raise ValueError(f"max_gap {self.max_gap} must lie in 1 to {self.context}, the context length")

    @property
    def features(self) -> FeatureConfig:
        """Configuration of the features."""
        return FeatureConfig(parse(self.freq), self.seasons, self.context, self.horizon, self.calendar)


class Sequences(NamedTuple):
    """Advancing events of S segments (or windows of them), T each, over G periods; padding repeats the last event.

    Attributes:
        grid: `[S, L - 1 + G]` float32, values by period with gaps filled as `step` fills them; G starts with the first
            event's period.
        offset: `[S, T]` int64 in [0, G), each event's period relative to the first event's.
        period: `[S, T]` int64, periods since the epoch.
        gap: `[S, T]` int64, periods since the event before; 0 for a segment's first event.
        observed: `[S, T]` bool, False = missing.
        known: `[S, T]` int64, periods known since the segment began, this one included.
        x: `[S, T, C]` float32, the covariates of the events, NaN = missing; None = all missing, or none declared.
        future: `[S, T, F, H]` float32, covariates known ahead, for the next periods; NaN and None as for `x`.
    """

    grid: Tensor
    offset: Tensor
    period: Tensor
    gap: Tensor
    observed: Tensor
    known: Tensor
    x: Tensor | None = None
    future: Tensor | None = None


class Forecast(NamedTuple):
    """Quantile forecasts in parts: the middle quantile is `base + scale * middle`, the others lie away from it.

    Attributes:
        middle: `[..., H]` correction of the middle quantile in units of the scale.
        distances: `[..., (Q - 1) H]` of the other quantiles from the middle one, in units of the scale, not negative
            and not decreasing outwards. Horizons come last because that layout is cheaper to compute in.
        base: `[..., H]` seasonal-naive forecast in the stream's own unit.
        scale: `[..., 1]` in the stream's own unit.
        centre: Index of the middle quantile.
    """

    middle: Tensor
    distances: Tensor
    base: Tensor
    scale: Tensor
    centre: int

    @property
    def spread(self) -> Tensor:
        """`[..., Q, H]`, the quantiles minus the middle one in units of the scale."""
        rows = self.distances.reshape(*self.middle.shape[:-1], -1, self.middle.shape[-1])
        below, above = rows[..., : self.centre, :], rows[..., self.centre :, :]
        return torch.cat([-below, torch.zeros_like(self.middle).unsqueeze(-2), above], dim=-2)

    def parts(self) -> Parts:
        """Return the forecast in the stream's own unit."""
        return Parts(self.base + self.scale * self.middle, self.distances, self.scale)

    def quantiles(self) -> Tensor:
        """Return `[..., H, Q]` in the stream's own unit."""
        horizon = self.middle.shape[-1]
        levels = 1 + self.distances.shape[-1] // horizon
        flat = self.parts().quantiles(levels, self.centre)
        return flat.reshape(*flat.shape[:-1], levels, horizon).transpose(-1, -2)


class Forecaster(nn.Module):
    """Global quantile forecaster; see the module's docstring."""

    outermost: Tensor

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.features = LagFeatures(config.features)
        self.covariates = CovariateFeatures(config.covariates, config.horizon) if config.covariates else None
        covariates = self.covariates
        inputs = self.features.num_features + (covariates.num_features if covariates else 0)
        self.cell = make_cell(config.cell, inputs + _EVENT_FEATURES, config.hidden, config.layers)
        self.dropout = nn.Dropout(config.dropout)
        self.head = QuantileHead(
            inputs=config.hidden + inputs + (covariates.num_ahead if covariates else 0),
            width=config.hidden,
            horizon=config.horizon,
            quantiles=config.quantiles,
            season=config.seasons[0],
            directions=self.features.num_directions + (covariates.num_directions if covariates else 0),
            dropout=config.dropout,
        )
        self.tracker = QuantileTracker(config.horizon, config.quantiles)
        self.forecast_scores = ForecastScores(config.quantiles, self.tracker.horizons)
        self.tails = TailModel(config.quantiles)
        anchors = self.tracker.num_anchors
        outermost = torch.tensor([0, self.tracker.middle * anchors, (len(config.quantiles) - 1) * anchors])
        self.register_buffer("outermost", outermost, persistent=False)
        self.alarms = NetworkAlarms() if config.alarms else None
        # Nothing asks for more, and ONNX Runtime's Clip is wrong for int64 beyond 2^31, a month of milliseconds.
        self.most_known = max(config.context, config.horizon) + 1
        self.window = LagWindow(config.context, config.seasons[0], config.max_gap, config.fill, self.most_known)

    def state_specs(self) -> tuple[StateSpec, ...]:
        """Return the kinds of state of a stream, in the order of `Rows.flat`."""
        config, tracker = self.config, self.tracker
        return (
            StateSpec(name="clock", dtype="int64", row_shape=(2,)),
            StateSpec(name="lags", dtype="float32", row_shape=(config.context,)),
            *(
                StateSpec(name=name, dtype="float32", row_shape=(config.layers * config.hidden,))
                for name in self.cell.states
            ),
            StateSpec(name="probes", dtype="float32", row_shape=(tracker.entries, tracker.width)),
            StateSpec(name="offsets", dtype="float32", row_shape=(tracker.num_levels, tracker.num_anchors)),
            StateSpec(name="tails", dtype="float32", row_shape=(TAILS,)),
            *((StateSpec(name="alarms", dtype="float32", row_shape=(ALARMS,)),) if config.alarms else ()),
        )

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the columns of `score`."""
        return self.forecast_scores.names

    def initial_rows(self, streams: int) -> Rows:
        """Return the state of streams never seen."""
        rows = (
            torch.zeros((streams, *spec.row_shape), dtype=getattr(torch, spec.dtype)) for spec in self.state_specs()
        )
        return Rows.from_flat(tuple(rows))

    def forward(
        self, sequences: Sequences, origins: Tensor | None = None, products: torch.dtype = torch.float32
    ) -> Forecast:
        """Forecast from every event of every sequence, or from some of them.

        Args:
            sequences: Events; the cells start from zeros at each sequence's first.
            origins: `[S, K]` int64 in [0, T), the events to forecast from; None = all.
            products: Type in which cells and head multiply matrices; bfloat16 is mixed precision, for training. Figures
                computed from observations, and the forecast, are always float32.

        Returns:
            Forecasts with leading dimensions `[S, T]` or `[S, K]`.
        """
        view = self.view(sequences)
        inputs = self.cell_inputs(view, sequences.gap, sequences.observed)
        with mixed(inputs.device, products):
            outputs = self.cell.sequence(inputs)
            if origins is not None:
                streams = torch.arange(len(origins), device=origins.device).unsqueeze(1)
                outputs = outputs[streams, origins]
                view = view.take(streams, origins)
            return self.forecast(outputs, view)

    def view(self, sequences: Sequences) -> LagView:
        """Return every event's lags as the network sees them; leading dimensions `[S, T]`."""
        streams = torch.arange(len(sequences.grid), device=sequences.grid.device).unsqueeze(1)
        window = sequences.grid.unfold(1, self.config.context, 1)[streams, sequences.offset]
        known = sequences.known
        view: LagView = self.features(self.features.mask_unknown(window, known), known, sequences.period)
        return self.with_covariates(view, sequences.x, sequences.future)

    def with_covariates(self, view: LagView, x: Tensor | None, future: Tensor | None) -> LagView:
        """Return the view with the covariates of the same events, if the forecaster takes any."""
        if self.covariates is None:
            return view
        seen: LagView = self.covariates(view, x, future)
        return seen

    def step(
        self,
        ds: Tensor,
        y: Tensor,
        rows: Rows,
        calibrate: Tensor | float = 1.0,
        x: Tensor | None = None,
        future: Tensor | None = None,
        row: Tensor | None = None,
        alarm_interval: Tensor | None = None,
    ) -> tuple[StepOutputs, Rows]:
        """Advance each stream by one event.

        Args:
            ds: `[B]` int64, milliseconds since the epoch.
            y: `[B]` float32; NaN, or beyond `MAX_ABS_Y`, is missing.
            rows: State of the streams.
            calibrate: `[]`, share of the online correction in the forecasts: 1 = calibrated, 0 = the network's own. The
                offsets that are learnt do not depend on it.
            x: `[B, C]` float32, the covariates of the events, NaN = missing; None = all missing.
            future: `[B, F, H]` float32, covariates known ahead, for the next H periods; None = all missing.
            row: `[B]` int64, row of `rows.pending` of each event; None = the order of the events.
            alarm_interval: `[B]`, periods in which one alarm of a stream is wanted, 0 = none; None = one a week.

        Returns:
            Outputs for the events, and the next state.
        """
        context = self.config.context
        period = periods_of(ds, parse(self.config.freq))
        newest_period, age = rows.clock[:, 0], rows.clock[:, 1]
        observed = y.abs() <= MAX_ABS_Y  # False for NaN
        value = torch.where(observed, y, 0.0)
        seen = age > 0
        gap = torch.where(seen, period - newest_period, self.config.max_gap + 1)
        restarts, advances = gap > self.config.max_gap, gap > 0
        shift = torch.where(restarts, 0, torch.where(advances, gap, 0))

        known = torch.where(restarts, 0, age - 1)
        known = torch.where(known > 0, known + shift, (advances & observed).to(torch.int64))
        known = known.clamp(max=self.most_known)
        period = torch.where(advances, period, newest_period)

        lags, seasonal = self.window(rows.lags, shift, known, value, advances & observed, restarts)

        view = self.with_covariates(self.features(lags, known, period), x, future)
        before = tuple(torch.where(restarts.unsqueeze(1), 0.0, part) for part in rows.cells)
        stepped = self.cell.step(self.cell_inputs(view, shift, observed), before)
        cells = tuple(
            torch.where(advances.unsqueeze(1), new, old) for new, old in zip(stepped, rows.cells, strict=True)
        )
        tracker = self.tracker
        own = self.forecast(self.cell.output(cells), view).parts()
        resolved, tracks = tracker.resolve(rows.tracks, value, period, known, advances & observed, restarts, row)
        published = tracker.quantiles(tracker.correct(own, calibrate * tracks.offsets))
        own, pending = tracker.parts_at_anchors(own), published[:, tracker.quantiles_at_anchors]
        tracks = tracker.remember(tracks, own, pending, period, row)

        status = status_of(observed, gap, known < context)
        ends = self.ends(resolved.published)
        miss = miss_of(value, ends)
        tails, periods = self.tails(rows.tails.t(), miss, resolved.valid[:, 0])
        beyond = outside(miss, periods)
        score, anomaly = self.forecast_scores(
            value, resolved.published, view.scale.squeeze(1), resolved.valid, naive=seasonal, outside=beyond
        )
        clock = torch.stack([period, known + 1], dim=1)
        following = Rows(clock, lags, cells, tracks.pending, tracks.offsets, tails.t())
        alarm = None
        if self.alarms is not None and rows.alarms is not None:
            judged = judge(value, ends[1], beyond, resolved.valid[:, 0])
            interval = self.usual_interval(ds) if alarm_interval is None else alarm_interval
            passed = torch.where(seen, gap, 0)
            alarms, alarm = self.alarms(rows.alarms.t(), judged, advances & observed, advances, passed, interval)
            following, alarm = following._replace(alarms=alarms.t()), alarm.t()
        return StepOutputs(tracker.by_horizon(published), status, score, anomaly, alarm), following

    def forecast(self, outputs: Tensor, view: LagView) -> Forecast:
        """Return the forecasts for the cells' outputs, `[..., hidden]`, and the views of the same events."""
        seen = [outputs, view.features] if view.ahead is None else [outputs, view.features, view.ahead]
        middle, distances = self.head(torch.cat(seen, dim=-1), view.directions)
        return Forecast(middle, distances, view.base, view.scale, self.tracker.middle)

    def ends(self, published: Tensor) -> Tensor:
        """Return the lowest, middle and highest quantile one period ahead, `[3, B]`, of `[B, Q K]` at the anchors."""
        return published.t()[self.outermost]

    def usual_interval(self, like: Tensor) -> Tensor:
        """Return `[B]`, the periods of a week: one alarm of a stream is wanted in them unless something else is."""
        return torch.full(like.shape[:1], slots_per_alarm(ONE_A_WEEK, parse(self.config.freq)))

    def cell_inputs(self, view: LagView, gap: Tensor, observed: Tensor) -> Tensor:
        """Return the cells' inputs: the features, the gap before the event, and whether it was observed."""
        event = [self.features.log_gap(gap), observed.to(torch.float32)]
        inputs: Tensor = self.dropout(torch.cat([view.features, torch.stack(event, dim=-1)], dim=-1))
        return inputs
