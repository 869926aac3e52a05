"""Is the exported file the module? Step by step, through ONNX Runtime, with the state bound in place.

Owns: the events of the check, the measure of agreement, the verdict. Does not know: how the file was made. The file
runs as the engine runs it: one buffer per state, bound as input and as output, rows picked by `slots`.

Each step starts from the file's own state, in both, so differences neither accumulate nor hide. The check compares the
step at states that the file itself reaches.

Measure: with a the file's figure, b the module's, and s the stream's scale in that step, every float output and state
in the stream's unit keeps |a - b| <= 1e-4 (|b| + s). The cells' state and the offsets, which have no unit, keep it with
s = 1. Scores, anomaly and offsets come from differences between an observation and a forecast in units of the scale. So
a few float32 roundings of either, in that unit, are added to their s, and to the s of a forecast that an offset moves.
`covered` may differ where the observation lies that close to the edge. Status and integer states are equal. Alarms open
and close at thresholds, where a rounding decides: their output and state keep the measure, in the stream's unit, in all
but one event in a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from rillcast.arrays import AnyArray, FloatArray, IntArray
from rillcast.bundle.alarms import ALARM, ALARM_INTERVAL
from rillcast.bundle.bundle import BOUNDS, CALIBRATE, NEXT_SUFFIX, STATE_PREFIX
from rillcast.bundle.contract import FUTURE, X
from rillcast.errors import ParityError
from rillcast_training.model.calibration import Resolved
from rillcast_training.model.experts.forecaster import ExpertForecaster
from rillcast_training.model.forecaster import Forecaster
from rillcast_training.model.rows import Rows
from rillcast_training.model.tails import WIDTH, miss_of

TOLERANCE: Final = 1e-4
BATCHES: Final = (1, 2, 7, 256)
STEPS: Final = 420
_STARTS_MS: Final = (1_704_067_200_000, -86_400_000 * 30 - 1)  # 2024-01-01, and before 1970, off the period's edge
_OUTPUTS: Final = ("forecast", "status", "score", "anomaly")
_AT_A_THRESHOLD: Final = (ALARM, "alarms")
_DECIDED_BY_ROUNDING: Final = 0.01  # share of the events, at most
_ROUNDINGS: Final = 8
_ALARM_INTERVAL: Final = 168.0
_UNCALIBRATED_SHARE: Final = 0.2  # share of the calls
_MISSING_SHARE: Final = 0.1  # share of the covariates
_EDGE_SHARE: Final = 0.1  # share of the events, in the first or the last millisecond of their periods


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Result of the check.

    Attributes:
        steps: Events compared, over all batches.
        worst: Largest |a - b| / (|b| + s) of any float figure.
    """

    steps: int
    worst: float


@dataclass(frozen=True, slots=True)
class _Event:
    slots: IntArray
    ds: IntArray
    y: FloatArray
    calibrate: float
    covariates: dict[str, FloatArray]

    def of(self, rows: IntArray) -> tuple[IntArray, IntArray, FloatArray, float, dict[str, FloatArray]]:
        """Return the arguments of `InPlaceSession.run` for some of the streams."""
        covariates = {name: values[rows] for name, values in self.covariates.items()}
        return self.slots[rows], self.ds[rows], self.y[rows], self.calibrate, covariates


def check_parity(forecaster: Forecaster, path: Path, *, seed: int = 0) -> ParityReport:
    """Compare a bundle file with the module that it was exported from.

    Batches of 1, 2, 7 and 256 streams in turns, over enough steps for the lags to be replaced: real epoch times, gaps,
    long gaps, repeats, late events, missing values, constant runs, levels far above their changes.

    Raises:
        ParityError: they differ; it names the output, batch, step and stream, and says by how much.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of small steps, for which threads cost more than they save
    try:
        return _check(forecaster, path, seed)
    finally:
        torch.set_num_threads(threads)


def _check(forecaster: Forecaster, path: Path, seed: int) -> ParityReport:
    """Step the module once for all batches: its rows do not depend on each other, and the file's must not."""
    streams = sum(BATCHES)
    batches = np.split(np.arange(streams), np.cumsum(BATCHES)[:-1])
    steps = max(STEPS, 2 * forecaster.config.context + 20)
    results = _OUTPUTS if forecaster.alarms is None else (*_OUTPUTS, ALARM)
    session = InPlaceSession(path, forecaster, streams + 2, results)  # row 0 is padding, and one row is never touched
    decided = dict.fromkeys(_AT_A_THRESHOLD, 0)
    names = [spec.name for spec in forecaster.state_specs()]
    worst = 0.0
    for number, event in enumerate(_events(forecaster, np.random.default_rng(seed), streams, steps)):
        with torch.no_grad():
            before = Rows.from_flat(tuple(torch.from_numpy(session.state(name)[event.slots]) for name in names))
            y = torch.from_numpy(event.y)
            covariates = {name: torch.from_numpy(values) for name, values in event.covariates.items()}
            interval = torch.full((streams,), _ALARM_INTERVAL)
            outputs, following = forecaster.step(
                torch.from_numpy(event.ds), y, before, event.calibrate, **covariates, alarm_interval=interval
            )
        runs = [session.run(*event.of(rows)) for rows in batches]
        found = {name: np.concatenate([run[name] for run in runs]) for name in results}
        scale, units = _units(forecaster, y, before, following)
        expected = dict(zip(results, outputs.flat(), strict=True)) | dict(zip(names, following.flat(), strict=True))
        for name, tensor in expected.items():
            got = found[name] if name in found else session.state(name)[event.slots]
            unit = units.get(name, scale)
            ratio = _disagreement(got, tensor.numpy(), unit)
            if name in decided:
                decided[name] += int((ratio > TOLERANCE).sum())
                continue
            if ratio.max() > TOLERANCE:
                row = int(ratio.argmax())
                batch = next(rows.size for rows in batches if row in rows)
                raise ParityError(
                    f"{path.name}: output {name!r}, batch of {batch}, step {number}, stream {event.slots[row]}: "
                    f"|exported - module| is {ratio[row]:.3g} of (|module| + scale), allowed are {TOLERANCE:g} "
                    f"(ds {event.ds[row]}, y {event.y[row]}); nothing was written"
                )
            worst = max(worst, float(ratio.max()))
    for name, events_apart in decided.items():
        if events_apart > _DECIDED_BY_ROUNDING * streams * steps:
            raise ParityError(
                f"{path.name}: output or state {name!r}: file and module differ in {events_apart} of "
                f"{streams * steps} events; nothing was written"
            )
    if not session.untouched_row_is_zero(streams + 1):
        raise ParityError(f"{path.name}: the row of a stream without events changed")
    return ParityReport(streams * steps, worst)


def _units(
    forecaster: Forecaster, y: Tensor, before: Rows, following: Rows
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the streams' scale, `[B, 1]`, and s of the measure for figures with another one, `[B, 1 or more]`."""
    period, known = following.clock[:, 0], following.clock[:, 1] - 1
    with torch.no_grad():
        scale: FloatArray = forecaster.features(following.lags, known.clamp(min=0), period).scale.numpy()
        resolved, _ = forecaster.tracker.resolve(before.tracks, y, period, known, y.isfinite())
    tracker = forecaster.tracker
    published = resolved.published.numpy().reshape(-1, tracker.num_levels, tracker.num_anchors)
    value = np.nan_to_num(y.numpy())[:, None, None]
    size = np.maximum(np.abs(value[:, 0]), np.abs(before.pending.flatten(1).numpy()).max(1, keepdims=True))
    rounding = _ROUNDINGS * np.finfo(np.float32).eps * size
    loss = 1 + rounding / scale / TOLERANCE
    edges = np.abs(value - published[:, [0, -1]]).min(1)
    near = np.where(edges <= rounding, np.inf, 1)
    one_ahead = published[:, :, 0]
    width = np.maximum(np.diff(one_ahead, axis=1).min(1, keepdims=True), 0) if tracker.num_levels > 1 else scale
    anomaly = 1 + rounding / np.maximum(width, rounding * TOLERANCE + np.finfo(np.float32).tiny) / TOLERANCE
    moved = 1 + tracker.sensitivity * (loss - 1)
    tail, at_knot = _tail_rounding(forecaster, y, before, resolved, rounding)
    each = loss + 0 * edges  # at every horizon
    return scale, {
        "score": np.concatenate([each, near, each, loss], axis=1),  # the last is the naive forecast's
        "anomaly": anomaly + tail / TOLERANCE,
        "tails": np.concatenate([np.where(at_knot, np.inf, 1) + np.zeros((1, WIDTH - 1)), scale * loss], axis=1),
        "offsets": moved,
        "forecast": scale * moved,
        "probes": scale * moved,
        **dict.fromkeys(forecaster.cell.states, np.ones_like(scale)),
    }


def _tail_rounding(
    forecaster: Forecaster, y: Tensor, before: Rows, resolved: Resolved, rounding: FloatArray
) -> tuple[FloatArray, AnyArray]:
    """Return by how much rounding moves the anomaly beyond the quantiles, and whether it moves a knot, `[B, 1]`."""
    value, state, valid = y.nan_to_num(), before.tails.t(), resolved.valid[:, 0]
    off = torch.from_numpy(rounding[:, 0].astype(np.float32))
    with torch.no_grad():
        ends = [
            forecaster.tails(state, miss_of(at, forecaster.ends(resolved.published)), valid)
            for at in (value - off, value + off)
        ]
    (less, rare), (more, common) = ends
    tail: FloatArray = 2 * (1 / rare - 1 / common).abs().amax(dim=0).numpy()[:, None]
    at_knot: AnyArray = (less[:-1] != more[:-1]).any(dim=0).numpy()[:, None]
    return np.where(at_knot, np.float32(np.inf), tail), at_knot


def _disagreement(found: AnyArray, expected: AnyArray, scale: FloatArray) -> AnyArray:
    """Return `[B]`, the worst |a - b| / (|b| + s) per stream; infinite where integers, NaNs or shapes differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return np.array([np.inf])
    a, b = (array.reshape(len(array), -1) for array in (found, expected))
    if a.dtype.kind != "f":
        return np.where((a != b).any(axis=1), np.inf, 0.0)
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (np.isnan(a) & np.isnan(b)) | (a == b)
    with np.errstate(invalid="ignore"):
        ratio = np.where(same, 0.0, np.abs(a - b) / (np.abs(b) + scale.astype(np.float64)))
    worst: AnyArray = np.where(np.isfinite(ratio), ratio, np.inf).max(axis=1)
    return worst


class InPlaceSession:
    """A graph of a bundle on ONNX Runtime's CPU provider with one buffer per state, as the engine binds it."""

    def __init__(
        self,
        model: Path | bytes,
        forecaster: Forecaster | ExpertForecaster,
        streams: int,
        outputs: Sequence[str] = _OUTPUTS,
    ) -> None:
        self._outputs = outputs
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._takes = {one.name for one in self._session.get_inputs()}
        self._states = {
            spec.name: onnxruntime.OrtValue.ortvalue_from_numpy(
                np.zeros((streams, *spec.row_shape), dtype=spec.numpy_dtype)
            )
            for spec in forecaster.state_specs()
        }

    def run(
        self,
        slots: IntArray,
        ds: IntArray,
        y: FloatArray,
        calibrate: float = 1.0,
        covariates: Mapping[str, FloatArray] | None = None,
    ) -> dict[str, AnyArray]:
        """Step the streams in rows `slots` and return the outputs by name. The states are updated in place."""
        binding = self._session.io_binding()
        inputs = {"slots": slots, "ds": ds, "y": y, CALIBRATE: np.array(calibrate, np.float32), **(covariates or {})}
        if BOUNDS in self._takes:
            inputs[BOUNDS] = np.array(1, np.float32)
        if ALARM_INTERVAL in self._takes:
            inputs[ALARM_INTERVAL] = np.full(slots.size, _ALARM_INTERVAL, np.float32)
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name, value in self._states.items():
            binding.bind_ortvalue_input(STATE_PREFIX + name, value)
            binding.bind_ortvalue_output(STATE_PREFIX + name + NEXT_SUFFIX, value)
        for name in self._outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        outputs = binding.get_outputs()[len(self._states) :]  # in the order of binding
        return {name: value.numpy() for name, value in zip(self._outputs, outputs, strict=True)}

    def copy_states(self, other: InPlaceSession) -> None:
        """Copy the state of all streams of another session."""
        for name, value in self._states.items():
            value.numpy()[:] = other.state(name)

    def clear(self, row: int) -> None:
        """Set a row to the state of a stream never seen."""
        for value in self._states.values():
            value.numpy()[row] = 0

    def state(self, name: str) -> AnyArray:
        """Return a copy of a whole state."""
        array: AnyArray = self._states[name].numpy()
        return array

    def untouched_row_is_zero(self, row: int) -> bool:
        """Whether a row is unchanged since the session was made."""
        return not any(self.state(name)[row].any() for name in self._states)


def _events(forecaster: Forecaster, rng: np.random.Generator, streams: int, steps: int) -> list[_Event]:
    """Draw the steps: every stream has one event in each, with its own clock."""
    frequency, season = forecaster.config.features.frequency, forecaster.config.seasons[0]
    level = 10.0 ** rng.integers(-3, 9, size=streams) * rng.choice([-1.0, 1.0], size=streams)
    change = np.abs(level) * 10.0 ** -rng.integers(0, 4, size=streams)
    period = np.array([frequency.period_of(_STARTS_MS[i % len(_STARTS_MS)]) for i in range(streams)], dtype=np.int64)
    rows = 1 + rng.permutation(streams).astype(np.int64)
    events = []
    for number in range(steps):
        kind = rng.choice(7, size=streams, p=[0.80, 0.06, 0.04, 0.03, 0.03, 0.038, 0.002])
        if number == 0:
            kind[:] = 0
        gap = np.select(
            [kind == 1, kind == 2, kind == 3, kind == 6],
            [rng.integers(2, season + 3, streams), 0, -rng.integers(1, 5, streams), forecaster.config.max_gap + 1],
            default=1,
        )
        wave = np.sin(2 * np.pi * (period + gap) / season)
        flat = rng.random(streams) < 0.05
        y = level + change * np.where(flat, 0.0, wave + 0.3 * rng.normal(size=streams))
        y = np.where((kind == 4) | ((number < 2) & (np.arange(streams) % 5 == 4)), np.nan, y)
        begins, ends = frequency.start_of(period + gap), frequency.start_of(period + gap + 1)
        ds = rng.integers(begins, ends)
        ds = np.where(rng.random(streams) < _EDGE_SHARE, np.where(rng.random(streams) < 0.5, begins, ends - 1), ds)
        period = np.maximum(period, period + gap)
        calibrate = 0.0 if rng.random() < _UNCALIBRATED_SHARE else 1.0
        covariates = random_covariates(forecaster, rng, (streams,))
        events.append(_Event(rows, ds, y.astype(np.float32), calibrate, covariates))
    return events


def random_covariates(
    forecaster: Forecaster, rng: np.random.Generator, events: tuple[int, ...]
) -> dict[str, FloatArray]:
    """Draw the inputs of the covariates, if there are any: usual values, outliers, missing ones, unknown categories."""
    if (declared := forecaster.covariates) is None:
        return {}
    columns = []
    for one in declared.covariates:
        if one.kind == "category":
            columns.append(rng.integers(-1, len(one.categories) + 2, events).astype(np.float64))
        else:
            columns.append(one.loc + one.scale * rng.normal(size=events) * 10.0 ** rng.choice([0, 0, 0, 8], events))
    drawn = {X: np.stack(columns, axis=-1)}
    if declared.ahead:
        shape = (*events, len(declared.ahead), declared.horizon)
        loc, scale = (np.array([[getattr(one, name)] for one in declared.ahead]) for name in ("loc", "scale"))
        drawn[FUTURE] = loc + scale * rng.normal(size=shape)
    return {
        name: np.where(rng.random(values.shape) < _MISSING_SHARE, np.nan, values).astype(np.float32)
        for name, values in drawn.items()
    }
