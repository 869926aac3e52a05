"""Which past periods and which features moved one forecast.

Owns: the baseline of the forecast, and its two breakdowns: by observation, and by feature of the network. Does not
know: files, pictures, how gradients are integrated.

The baseline is the same stream at its mean: every observation is replaced by the mean of those in the lag window, the
times unchanged. So an observation's attribution is the effect of its distance from the mean on the forecast, in the
stream's own unit. For the features, the baseline's calendar is 0, the mean of a sine over its cycle, and its covariates
are missing. For the observations, covariates are unchanged.

Attributions are taken on the module, which has gradients. Occlusion checks them on the exported file, run by the
serving engine: each observation in turn is set to the baseline's value, and the forecast is made again. The two agree
where the forecast is near linear in its past; where they differ much, observations act jointly. The online calibration
is off in both, because an explanation is of the network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rillcast.bundle.bundle import Bundle
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import ParityError
from rillcast.events import EventBatch
from rillcast.figures import Undefined
from rillcast_training.explain.history import History, iso
from rillcast_training.explain.integrated import Attribution, Inputs, integrated_gradients
from rillcast_training.model.features import LagView
from rillcast_training.model.forecaster import Forecaster

_DIRECTIONS: Final = ("towards the newest value", "newest seasonal change", "mean season", "longer season")
_EVENT_FEATURES: Final = ("gap", "observed")
_NEGLIGIBLE: Final = 1e-3  # share of the scale: differences below it are rounding
_AGREES: Final = 1e-3  # largest |module - file| / (|forecast| + scale)
_STRONGEST: Final = 10
_CALL_ROWS: Final = 1_024
_CALL_EVENTS: Final = 16_384

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Target:
    """The figure that is explained.

    Attributes:
        quantile: Index among the model's levels.
        step: Period ahead, from 1; None = the mean over all.
    """

    quantile: int
    step: int | None

    def of(self, quantiles: Any) -> Any:
        """Pick the figure out of `[..., H, Q]`, an array or a tensor."""
        column = quantiles[..., self.quantile]
        return column.mean(-1) if self.step is None else column[..., self.step - 1]


@dataclass(frozen=True, slots=True)
class PeriodAttribution:
    """One observation's part.

    Attributes:
        ds: Start of its period, ISO 8601.
        lag: Periods before the event that the forecast was made from.
        y: Observation.
        attribution: Integrated gradient, in the stream's unit.
        occlusion: Forecast minus the forecast with this observation at the baseline's value, by the exported file; None
            if it was not occluded.
    """

    ds: str
    lag: int
    y: float
    attribution: float
    occlusion: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Breakdown of a forecast.

    Attributes:
        value: Explained figure.
        served: The same figure from the exported file over the whole stream; differs where the history was cut short.
        baseline_y: Mean of the stream, which replaces observations.
        baseline: Figure for a stream that is constant at the mean.
        scale: Scale of the stream at the origin.
        periods: Observations, oldest first.
        by_period: Points and gap of their integration.
        parts: Attributions by way into the forecast: the seasonal-naive base, the scale, the directions, the features
            that the head sees, and the features that came through the recurrent state.
        features: Attributions by group of features, head and state together.
        by_feature: Points and gap of their integration.
        correlation: Pearson's, of attribution and occlusion over the occluded periods; None without occlusion.
        common: How many of the ten strongest periods the two share; None without occlusion.
    """

    value: float
    served: float
    baseline_y: float
    baseline: float
    scale: float
    periods: tuple[PeriodAttribution, ...]
    by_period: Attribution
    parts: dict[str, float]
    features: dict[str, float]
    by_feature: Attribution
    correlation: float | None
    common: int | None


def explain(
    forecaster: Forecaster,
    bundle: Bundle,
    device: Device,
    history: History,
    target: Target,
    *,
    occlude: int,
) -> Explanation:
    """Break down the forecast from the last event of a history.

    Args:
        forecaster: Trained module.
        bundle: File that it was exported to.
        device: Device for the file.
        history: Past of the stream.
        target: Figure to explain.
        occlude: Number of newest observations to occlude.

    Raises:
        ParityError: module and file disagree on the forecast.
    """
    forecaster = forecaster.eval()
    observed = history.observed
    recent = observed[history.periods[observed] > history.periods[-1] - forecaster.config.context]
    baseline_y = float(history.y[recent if len(recent) else observed].astype(np.float64).mean())
    y = torch.from_numpy(np.nan_to_num(history.y))
    constant = torch.full_like(y, baseline_y)
    with torch.no_grad():
        scale = float(forecaster.view(history.sequences(y.unsqueeze(0))).scale[0, -1, 0])
    unit = _NEGLIGIBLE * scale

    by_period = integrated_gradients(_of_observations(forecaster, history, target), (y,), (constant,), unit=unit)
    by_feature, parts, features = _of_features(forecaster, history, target, y, constant, unit)

    occluded = observed[-occlude:] if occlude else observed[:0]
    variants = np.repeat(history.y[None], 1 + len(occluded), axis=0)
    variants[1 + np.arange(len(occluded)), occluded] = np.float32(baseline_y)
    figures = target.of(serve(bundle, device, history, variants).astype(np.float64))
    if abs(figures[0] - by_period.value) > _AGREES * (abs(by_period.value) + scale):
        raise ParityError(
            f"stream {history.unique_id!r}: the module forecasts {by_period.value:.6g}, the file {figures[0]:.6g}; "
            "use a file that was exported from this module by this version"
        )
    attributions = by_period.parts[0].double().numpy()
    without: dict[int, float] = dict(zip(occluded.tolist(), (figures[0] - figures[1:]).tolist(), strict=True))
    correlation, common = _agreement(attributions[occluded], figures[0] - figures[1:])
    return Explanation(
        value=by_period.value,
        served=float(figures[0]),
        baseline_y=baseline_y,
        baseline=by_period.baseline,
        scale=scale,
        periods=tuple(
            PeriodAttribution(
                iso(history.periods[row], forecaster.config.freq),
                int(history.periods[-1] - history.periods[row]),
                float(history.y[row]),
                float(attributions[row]),
                without.get(row),
            )
            for row in observed.tolist()
        ),
        by_period=by_period,
        parts=parts,
        features=features,
        by_feature=by_feature,
        correlation=correlation,
        common=common,
    )


def serve(bundle: Bundle, device: Device, history: History, variants: npt.NDArray[np.float32]) -> Floats:
    """Run variants of a history through the serving engine, as streams of one batch.

    Args:
        bundle: File to run.
        device: Device for the file.
        history: Times of the events.
        variants: `[V, T]` observations; NaN = missing.

    Returns:
        `[V, H, Q]`, the forecasts from the last event, without the online calibration.
    """
    count, events = variants.shape
    engine = StepEngine(bundle, device, batching=Batching(_CALL_ROWS), calibrate=False)
    names = [f"variant {number}" for number in range(count)]
    ds = bundle.metadata.frequency.start_of(history.periods)
    per_call = max(1, _CALL_EVENTS // count)
    for first in range(0, events, per_call):
        block = slice(first, min(events, first + per_call))
        length = block.stop - first
        covariates = {name: np.repeat(values[block], count, axis=0) for name, values in history.covariates.items()}
        x, future = covariates.get("x"), covariates.get("future")
        times, y = np.repeat(ds[block], count), variants.T[block].reshape(-1)
        result = engine.step(EventBatch.of(names * length, times, y, x, future, first_offset=first * count))
    return result.forecast[-count:].astype(np.float64)


def _of_observations(forecaster: Forecaster, history: History, target: Target) -> Any:
    """Return the forecast as a function of the observations `[S, T]`."""
    last = len(history.periods) - 1

    def function(inputs: Inputs) -> Tensor:
        (values,) = inputs
        origins = torch.full((len(values), 1), last)
        figure: Tensor = target.of(forecaster(history.sequences(values), origins).quantiles())[:, 0]
        return figure

    return function


def _of_features(
    forecaster: Forecaster, history: History, target: Target, y: Tensor, constant: Tensor, unit: float
) -> tuple[Attribution, dict[str, float], dict[str, float]]:
    """Attribute the forecast to the network's inputs: the cells' inputs at every event and the last event's view."""
    with torch.no_grad():
        inputs = _seen(forecaster, history, y)
        baseline = _seen(forecaster, history, constant, missing=True)
    names, declared = forecaster.features.names, forecaster.covariates
    names_ahead: tuple[str, ...] = ()
    if declared is not None:
        names, names_ahead = (*names, *declared.names), declared.ahead_names
    calendar = [number for number, name in enumerate(names) if name.startswith("time of")]
    for part in baseline[:2]:
        part[..., calendar] = 0.0

    def function(seen: Inputs) -> Tensor:
        cell_inputs, features, base, scale, *directions = seen
        ahead = directions.pop() if names_ahead else None
        outputs = forecaster.cell.sequence(cell_inputs)[:, -1]
        figure: Tensor = target.of(
            forecaster.forecast(outputs, LagView(features, base, scale, tuple(directions), ahead)).quantiles()
        )
        return figure

    found = integrated_gradients(function, inputs, baseline, unit=unit)
    through_state, at_head, base, scale, *directions = (part.double() for part in found.parts)
    ahead = directions.pop() if names_ahead else torch.zeros(0)
    own = len(directions) - len(declared.ahead if declared else ())
    known = zip((f"{one.name}, ahead" for one in declared.ahead) if declared else (), directions[own:], strict=True)
    parts = {
        "seasonal-naive base": float(base.sum()),
        "scale": float(scale.sum()),
        **{name: float(part.sum()) for name, part in zip(_DIRECTIONS, directions[:own], strict=False)},
        **{name: float(part.sum()) for name, part in known},
        "features, directly": float(at_head.sum() + ahead.sum()),
        "features, through the recurrent state": float(through_state.sum()),
    }
    features: dict[str, float] = defaultdict(float)
    for name, part in zip((*names, *_EVENT_FEATURES), through_state.sum(0).tolist(), strict=True):
        features[name.split("[")[0]] += part
    for name, part in zip((*names, *names_ahead), (*at_head.tolist(), *ahead.tolist()), strict=True):
        features[name.split("[")[0]] += part
    return found, parts, dict(features)


def _seen(forecaster: Forecaster, history: History, y: Tensor, *, missing: bool = False) -> Inputs:
    """Return the cells' inputs `[T, inputs]` and the last event's features, base, scale, directions and features ahead.

    With `missing`, all covariates are missing.
    """
    sequences = history.sequences(y.unsqueeze(0))
    if missing:
        sequences = sequences._replace(x=None, future=None)
    view = forecaster.view(sequences)
    cell_inputs = forecaster.cell_inputs(view, sequences.gap, sequences.observed)
    last = view.take(torch.tensor(0), torch.tensor(-1))
    ahead = () if last.ahead is None else (last.ahead,)
    return (cell_inputs[0], last.features, last.base, last.scale, *last.directions, *ahead)


def _agreement(attributions: Floats, occlusions: Floats) -> tuple[float | None, int | None]:
    """Return Pearson's correlation and the number of common strongest periods; None of fewer than two periods."""
    if len(attributions) < 2:
        return None, None
    spread = attributions.std() * occlusions.std()
    common = np.mean((attributions - attributions.mean()) * (occlusions - occlusions.mean()))
    correlation = float(common / spread) if spread > 0 else Undefined("attributions or occlusions do not vary")
    strongest: Sequence[set[int]] = [
        set(np.argsort(-np.abs(one), kind="stable")[:_STRONGEST].tolist()) for one in (attributions, occlusions)
    ]
    return correlation, len(strongest[0] & strongest[1])
