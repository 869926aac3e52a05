"""Training: from a data file to a bundle.

Owns: the way from options to a bundle, and the report. Does not know: the loop (`rillcast_training.fit.trainer`), the
step's semantics, the data formats, how a bundle is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.registry.model_registry import MLFLOW_RUN
from rillcast.errors import OutputError, SettingsError
from rillcast.outputs import check
from rillcast_training.data import partitioned
from rillcast_training.data.covariates import declare, nothing
from rillcast_training.data.scratch import Scratch
from rillcast_training.data.series import Series, newest, observations, to_series
from rillcast_training.data.split import SplitSeries, left_out, split_to_validate
from rillcast_training.data.synthetic.generator import Recipe, synthesize
from rillcast_training.export.bundle import export
from rillcast_training.export.experts import write_experts
from rillcast_training.fit import curve, parallel
from rillcast_training.fit.checkpoint import EpochRecord, Progress
from rillcast_training.fit.compute import choose
from rillcast_training.fit.kind import Kind, kind_of
from rillcast_training.fit.on_experts import TraceTrainer, experts_shape, traces_of, with_network
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.shape import forecaster_shape
from rillcast_training.fit.summary import summary
from rillcast_training.fit.tracking import Tracking, tracked
from rillcast_training.fit.trainer import Trainer
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainReport:
    """Result of a training run.

    Attributes:
        model: Bundle file.
        model_id: Its identity.
        curve: Picture of the training curve; None = it could not be written.
        training: Summary that is also in the bundle's metadata.
        figures: Validation figures, with those of the seasonal-naive forecast.
        parity: Worst disagreement between the exported file and the module.
    """

    model: Path
    model_id: str
    curve: Path | None
    training: dict[str, Any]
    figures: dict[str, float]
    parity: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return asdict(self) | {"model": str(self.model), "curve": self.curve and str(self.curve)}


def train(options: TrainOptions, on_kind: Callable[[Kind], None] = lambda _: None) -> TrainReport:
    """Train, validate, export, check. `on_kind` gets the kind of network before it is trained.

    With `torchrun`, every process calls it with the same options and gets the same report; the first one writes.

    Raises:
        DataError: the data cannot be used.
        SettingsError: the options cannot be used, or the checkpoint belongs to other options.
        ParityError: the exported file differs from the module; nothing was written.
        DeviceError: the device or the precision that was asked for is unavailable.
        OutputError: the bundle cannot be written. A picture that cannot is a warning.
        RegistryError: MLflow, if the run is tracked, refuses or does not answer.
    """
    if parallel.is_first():
        check_outputs(options)
    compute = choose(options.device, options.precision)
    with parallel.joined(compute.device), threads(options.threads), compute.repeatable():
        if options.batch < parallel.size():
            raise SettingsError(f"batch is {options.batch}, expected at least one window for each process")
        scratch = None if options.scratch is None else Scratch(options.scratch)
        series, config = series_of(options, forecaster_shape(options), scratch)
        parts = split_to_validate(series, config, options.validation, options.balance, scratch, source=options.source)
        if parallel.is_first() and len(parts) < len(series):
            log.warning("%s: %s", options.source, left_out(series, config, options.validation))
        kind = kind_of(options, series)
        on_kind(kind)
        options = kind.options
        with tracked(options) if parallel.is_first() else nullcontext() as tracking:
            on_epoch = None if tracking is None else tracking.epoch
            if options.experts:
                experts = experts_shape(options, config.freq)
                trainer, progress = _fitted_on_experts(options, config, experts, parts, on_epoch)
            else:
                experts = None
                trainer, progress = fitted(options, config, parts, on_epoch=on_epoch)
            return parallel.from_first(lambda: _written(kind, series, trainer, progress, tracking, experts))


def _written(
    kind: Kind,
    series: Sequence[Series],
    trainer: Trainer,
    progress: Progress,
    tracking: Tracking | None,
    experts: ExpertsConfig | None,
) -> TrainReport:
    """Export the trained forecaster, draw the curve, and log both if the run is tracked."""
    options = kind.options
    again = _refits(options, progress)
    said = summary(kind, series, progress, trainer.compute, trainer.forecaster, refit=again)
    if tracking is not None:
        said[MLFLOW_RUN] = tracking.run_id
    name = options.name or options.out.name.removesuffix(".onnx")
    forecaster, figures = trainer.forecaster, progress.best_figures
    if experts is not None:
        whole = with_network(experts, forecaster)
        parity = write_experts(whole, options.out, name=name, training=said, backtest=figures)
    else:
        said["forecaster"] = asdict(forecaster.config)
        parity = export(forecaster, options.out, name=name, training=said, backtest=figures)
    identity = Bundle.load(options.out).metadata.model_id
    picture: Path | None = _picture(options)
    try:
        curve.draw(_picture(options), progress.curve, best_epoch=progress.best_epoch, title=options.out.name)
    except OutputError as error:
        log.warning("the picture of the training curve is not written: %s", error)
        picture = None
    report = TrainReport(options.out, identity, picture, said, progress.best_figures, parity.worst)
    if tracking is not None:
        tracking.finish(report.to_dict(), report.figures | {"parity": report.parity}, report.model, report.curve)
    return report


def check_outputs(options: TrainOptions, table: Path | None = None) -> None:
    """Refuse output files that are inputs, or that cannot be written.

    Args:
        options: Options with the files.
        table: File of the table that is made of a topic first, if any.

    Raises:
        SettingsError: A file is refused.
    """
    check(
        {"DATA": None if options.data == table else options.data, "--init": options.init},
        {
            "--out": options.out,
            "the picture of the training curve": _picture(options),
            "--checkpoint": options.checkpoint,
            "--table": table,
        },
    )


def _picture(options: TrainOptions) -> Path:
    return options.out.with_name(options.out.name + ".training.png")


def fitted(
    options: TrainOptions,
    config: ForecasterConfig,
    parts: Sequence[SplitSeries],
    make: Callable[[ForecasterConfig], Forecaster] = Forecaster,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> tuple[Trainer, Progress]:
    """Run a training to its end; return its trainer, whose forecaster has the best weights, and its progress.

    A refit is part of the run. The forecaster is on the CPU. `on_epoch` gets every point of the curve, those from
    before the run was resumed too.
    """
    trainer = Trainer(options, config, parts, make)
    progress = trainer.run(on_epoch)
    if _refits(options, progress):
        trainer = Trainer(options, config, [part.whole() for part in parts], make)
        progress.best_weights = trainer.refit(progress.best_epoch)
    trainer.finished(progress.best_weights)
    return trainer, progress


def _fitted_on_experts(
    options: TrainOptions,
    config: ForecasterConfig,
    experts: ExpertsConfig,
    parts: Sequence[SplitSeries],
    on_epoch: Callable[[EpochRecord], None] | None,
) -> tuple[Trainer, Progress]:
    """Run the training of a network on top of experts to its end."""
    traces = traces_of(parts, experts, quiet=options.quiet or not parallel.is_first())
    trainer = TraceTrainer(options, config, experts, traces)
    progress = trainer.run(on_epoch)
    widths = trainer.widths(progress.best_weights)
    if _refits(options, progress):
        trainer = TraceTrainer(options, config, experts, [one.whole() for one in traces])
        progress.best_weights = trainer.refit(progress.best_epoch)
    else:
        progress.best_figures = trainer.widened(widths)
    trainer.finished(progress.best_weights).widen(widths)
    return trainer, progress


def _refits(options: TrainOptions, progress: Progress) -> bool:
    """Return whether a finished run is followed by one on all data."""
    return options.refit or (options.refit_if_stopped and progress.epoch < options.epochs)


def series_of(
    options: TrainOptions, shape: ForecasterConfig, scratch: Scratch | None = None
) -> tuple[list[Series], ForecasterConfig]:
    """Return the series that the options name (a data set, synthetic series, or both), and the forecaster for them.

    Those of a data set are in memory, or with a `scratch` on its disk. Its covariates are those of `shape`, a bundle
    that is trained further, or are declared from the data. Synthetic series have no covariates: theirs are all missing.
    """
    series: list[Series] = []
    if options.data is not None:
        wanted = [(one.name, one.kind) for one in shape.covariates] or list(options.covariates)
        if scratch is None:
            frame = observations(options.data, options.freq, options.columns, wanted)
            if options.covariates:
                shape = replace(shape, covariates=declare(frame, options.covariates, str(options.data)))
            series = to_series(frame, options.freq, shape.covariates)
        elif wanted:
            raise SettingsError("--scratch: the bundle of --init has covariates, which are read into memory")
        else:
            series = partitioned.load(options.data, options.freq, options.columns, scratch)
        if options.hold_out:
            series, _ = newest(series, options.hold_out)
    if options.synthetic:
        made = synthesize(Recipe(freq=options.freq, series=options.synthetic, seed=options.seed))
        if shape.covariates:
            made = [replace(one, covariates=nothing(one.periods, shape.covariates)) for one in made]
        series += made
    return series, shape


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads; restore PyTorch's setting afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
