"""From a mixture of experts, with or without a network on top of it, to a bundle file.

Owns: the graph and the metadata of a bundle of experts, and the proof that the file computes what the module
does. Does not know: how a module is traced (`rillcast_training.export.tracing`), or what the experts do.

Every constant stands in the metadata, in the member `training`, entry `experts`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.alarms import ALARM_INTERVAL
from rillcast.bundle.bundle import BOUNDS, CALIBRATE, Bundle, BundleMetadata, seal
from rillcast.bundle.frequency import parse
from rillcast.errors import DataError, ParityError
from rillcast.outputs import replacing
from rillcast_training.export.parity import TOLERANCE, InPlaceSession, ParityReport
from rillcast_training.export.restore import attach, attached_weights
from rillcast_training.export.sequence_export import results
from rillcast_training.export.step_export import step_to_onnx, versions
from rillcast_training.model.experts.config import ExpertsConfig, NetworkShape
from rillcast_training.model.experts.forecaster import ExpertForecaster, ExpertRows

CELL: Final = "experts"
_EVENTS: Final = ("ds", "y", CALIBRATE, BOUNDS, ALARM_INTERVAL)
_STREAMS: Final = 7
_STEPS: Final = 120
_ROUNDINGS: Final = 16
_START_MS: Final = 1_704_067_200_000  # 2024-01-01


def export_experts(config: ExpertsConfig, path: str | Path, *, name: str) -> ParityReport:
    """Write a bundle of experts alone to `path`, once the file is proven equal to the module.

    Args:
        config: Frequency, horizon, seasons and constants.
        path: Bundle file; replaced if it exists, untouched if anything fails.
        name: Name of the model in the metadata.

    Raises:
        ParityError: the exported graph and the module disagree.
        BundleError: the graph breaks the bundle contract.
        OutputError: the file cannot be written.
    """
    return write_experts(ExpertForecaster(config), path, name=name)


def write_experts(
    forecaster: ExpertForecaster,
    path: str | Path,
    *,
    name: str,
    training: Mapping[str, Any] | None = None,
    backtest: Mapping[str, float] | None = None,
) -> ParityReport:
    """Write a bundle of experts, with or without a network, as `export_experts` does.

    Args:
        forecaster: The module.
        path: Bundle file; replaced if it exists, untouched if anything fails.
        name: Name of the model in the metadata.
        training: Summary of the network's training, for the metadata.
        backtest: Figures of the validation part.

    Raises:
        ParityError: the exported graph and the module disagree.
        BundleError: the graph breaks the bundle contract.
        OutputError: the file cannot be written.
    """
    path, forecaster = Path(path), forecaster.eval()
    model = experts_to_onnx(forecaster)
    if forecaster.network is not None:
        attach(model, {}, forecaster.network)
    sealed = seal(model, describe_experts(forecaster, name=name, training=training or {}, backtest=backtest or {}))
    with replacing(path) as partial:
        partial.write_bytes(sealed)
        return check_experts(forecaster, partial)


def describe_experts(
    forecaster: ExpertForecaster,
    *,
    name: str,
    training: Mapping[str, Any] | None = None,
    backtest: Mapping[str, float] | None = None,
) -> BundleMetadata:
    """Return the metadata; the model id is set when the bundle is sealed."""
    config = forecaster.config
    described = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    return BundleMetadata(
        name=name,
        cell=CELL if config.network is None else config.network.cell,
        freq=config.freq,
        horizon=config.horizon,
        quantiles=config.quantiles,
        context=forecaster.context,
        season=config.seasons[0],
        states=forecaster.state_specs(),
        scores=forecaster.scores,
        training={**(training or {}), "experts": described},
        backtest={name: value for name, value in (backtest or {}).items() if math.isfinite(value)},
        versions=versions(),
    )


def restore_experts(bundle: Bundle) -> ExpertForecaster:
    """Return the module that a bundle of experts was exported from, by its metadata.

    Raises:
        DataError: it is no bundle of experts, or one of constants that this version does not know.
    """
    metadata = bundle.metadata
    if "experts" not in metadata.training:
        raise DataError(f"bundle {metadata.name}@{metadata.model_id}: is no mixture of experts")
    try:
        values = dict(metadata.training["experts"])
        network = values.pop("network", None)
        config = _rebuilt(ExpertsConfig, values)
        if network is None:
            return ExpertForecaster(config).eval()
        forecaster = ExpertForecaster(dataclasses.replace(config, network=NetworkShape(**network)))
        assert forecaster.network is not None
        forecaster.network.load_state_dict(attached_weights(bundle))
        return forecaster.eval()
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"bundle {metadata.name}@{metadata.model_id}: this version cannot build its experts: {error}"
        ) from error


def _rebuilt(kind: type[Any], values: dict[str, Any]) -> Any:
    """Return a dataclass from its values in JSON, where tuples are lists."""
    inner = {one.name: one.default_factory for one in dataclasses.fields(kind)}
    return kind(
        **{
            name: _rebuilt(cast("type[Any]", inner[name]), value) if isinstance(value, dict) else _as_tuples(value)
            for name, value in values.items()
        }
    )


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(one) for one in value) if isinstance(value, list) else value


def experts_to_onnx(forecaster: ExpertForecaster) -> onnx.ModelProto:
    """Return the step over whole states: `(slots, ds, y, ..., state.*) -> (forecast, ..., state.*.next)`."""

    def example(size: int) -> tuple[Tensor, ...]:
        events = (torch.zeros(size, dtype=torch.int64), torch.zeros(size), torch.tensor(1.0), torch.tensor(1.0))
        return (*events, torch.ones(size), *forecaster.initial_rows(size).flat())

    step = _StepOverRows(forecaster)
    return step_to_onnx(step, forecaster.state_specs(), _EVENTS, example, results(forecaster, ["B"]))


class _StepOverRows(nn.Module):
    """`ExpertForecaster.step` with flat arguments, as the tracer needs it."""

    def __init__(self, forecaster: ExpertForecaster) -> None:
        super().__init__()
        self.forecaster = forecaster

    def forward(
        self,
        row: Tensor,
        ds: Tensor,
        y: Tensor,
        calibrate: Tensor,
        bounds: Tensor,
        alarm_interval: Tensor,
        *rows: Tensor,
    ) -> tuple[Tensor, ...]:
        state = ExpertRows.from_flat(rows)
        outputs, following = self.forecaster.step(ds, y, state, calibrate, row, alarm_interval, bounds)
        return (*outputs, *following.flat())


def check_experts(forecaster: ExpertForecaster, path: Path, *, seed: int = 0) -> ParityReport:
    """Compare a bundle file with the module: gaps, repeats, late events, missing values, levels far above the change.

    The file runs as the engine runs it, one buffer per state. Each step starts from the file's own state, in both, so
    differences neither accumulate nor hide. Forecasts keep |a - b| <= 1e-4 s plus some roundings of the level, with s
    the size of the stream's change; status and clock are equal.

    Raises:
        ParityError: they differ.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small steps, for which threads cost more than they save
    try:
        return _check(forecaster, path, seed)
    finally:
        torch.set_num_threads(threads)


def _check(forecaster: ExpertForecaster, path: Path, seed: int) -> ParityReport:
    frequency, rng = parse(forecaster.config.freq), np.random.default_rng(seed)
    session = InPlaceSession(path, forecaster, _STREAMS + 2)
    slots = 1 + rng.permutation(_STREAMS).astype(np.int64)
    level = 10.0 ** rng.integers(-3, 7, size=_STREAMS)
    change = level * 10.0 ** -rng.integers(0, 3, size=_STREAMS)
    period = np.full(_STREAMS, frequency.period_of(_START_MS), np.int64)
    season, worst = forecaster.config.seasons[0], 0.0
    for number in range(_STEPS):
        gap = rng.choice([1, 2, 7, 3 * season, 0, -1], size=_STREAMS, p=[0.84, 0.04, 0.02, 0.02, 0.04, 0.04])
        moved = period + (gap if number else 1)
        period = np.maximum(period, moved)
        y = level + change * (np.sin(2 * np.pi * moved / season) + 0.3 * rng.normal(size=_STREAMS))
        y = np.where(rng.random(_STREAMS) < 0.04, np.nan, y).astype(np.float32)
        ds: IntArray = frequency.start_of(moved)
        worst = max(worst, _compare(forecaster, session, path, (slots, ds, y), level, change))
    if not session.untouched_row_is_zero(_STREAMS + 1):
        raise ParityError(f"{path.name}: the row of a stream without events changed")
    return ParityReport(_STEPS * _STREAMS, worst)


def _compare(
    forecaster: ExpertForecaster,
    session: InPlaceSession,
    path: Path,
    events: tuple[IntArray, IntArray, AnyArray],
    level: AnyArray,
    change: AnyArray,
) -> float:
    slots, ds, y = events
    names = [spec.name for spec in forecaster.state_specs()]
    before = ExpertRows.from_flat(tuple(torch.from_numpy(session.state(name)[slots]) for name in names))
    with torch.no_grad():
        outputs, following = forecaster.step(torch.from_numpy(ds), torch.from_numpy(y), before)
    found = session.run(slots, ds, y)
    rounding = _ROUNDINGS * np.finfo(np.float32).eps * level
    far = np.abs(found["forecast"].astype(np.float64) - outputs.forecast.numpy()).max(axis=(1, 2))
    ratio = far / (change + rounding / TOLERANCE)
    equal: AnyArray = (session.state("clock")[slots] == following.clock.numpy()).all(axis=1)
    equal &= found["status"] == outputs.status.numpy()
    if not np.isfinite(ratio).all() or ratio.max() > TOLERANCE or not equal.all():
        row = int(np.where(equal & np.isfinite(ratio), ratio, np.inf).argmax())
        raise ParityError(
            f"{path.name}: stream {slots[row]}: |exported - module| is {ratio[row]:.3g} of the change, allowed are "
            f"{TOLERANCE:g}; status and clock are {'equal' if equal[row] else 'different'} "
            f"(ds {ds[row]}, y {y[row]}); nothing was written"
        )
    return float(ratio.max())
