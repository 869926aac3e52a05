"""Training: from a data file to a bundle.

Owns: the loop (optimiser, schedule, early stopping) and the report. Does not know: the step's semantics, the data
formats, how a bundle is written.

Invariant: an epoch's randomness is a function of the seed and its number, and a checkpoint is written at the end of
every epoch. So a run that is stopped and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

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
from rillcast_training.data.windows import Batch, WindowSampler, validation_batches
from rillcast_training.export.bundle import export
from rillcast_training.export.restore import restore as restore_bundle
from rillcast_training.export.restore import shorten
from rillcast_training.fit import curve, parallel
from rillcast_training.fit.checkpoint import EpochRecord, Progress, Stateful, read, restore, save
from rillcast_training.fit.compute import choose
from rillcast_training.fit.losses import ValidationFigures, quantile_loss
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.shape import forecaster_shape
from rillcast_training.fit.summary import summary
from rillcast_training.fit.tracking import Tracking, tracked
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig

log = logging.getLogger(__name__)

_VALIDATION_ORIGINS: Final = 24  # per series, at least
_VALIDATION_IN_ALL: Final = 1_200  # over all series, at least: fewer cannot distinguish the epochs of a few series
_VALIDATION_BATCH: Final = 128
CLIP_NORM: Final = 1.0
_MAY_DIFFER: Final = frozenset(  # when resuming
    {"out", "name", "checkpoint", "quiet", "track", "scratch", "patience", "refit", "refit_if_stopped"}
    | {"threads", "device", "precision"}
)
_EPOCHS_PER_SEED: Final = 1_000_003
_SEEDS_PER_PROCESS: Final = 7_919
_WARM_UP_SHARE: Final = 0.1  # share of all steps, until the learning rate peaks
_AVERAGING_POWER: Final = 2  # the weights of a step grow linearly with its number


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


def train(options: TrainOptions) -> TrainReport:
    """Train, validate, export, check.

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
        with tracked(options) if parallel.is_first() else nullcontext() as tracking:
            on_epoch = None if tracking is None else tracking.epoch
            trainer, progress = fitted(options, config, parts, on_epoch=on_epoch)
            return parallel.from_first(lambda: _written(options, series, trainer, progress, tracking))


def _written(
    options: TrainOptions, series: Sequence[Series], trainer: Trainer, progress: Progress, tracking: Tracking | None
) -> TrainReport:
    """Export the trained forecaster, draw the curve, and log both if the run is tracked."""
    again = _refits(options, progress)
    said = summary(options, series, progress, trainer.compute, trainer.forecaster, refit=again)
    if tracking is not None:
        said[MLFLOW_RUN] = tracking.run_id
    parity = export(
        trainer.forecaster,
        options.out,
        name=options.name or options.out.name.removesuffix(".onnx"),
        training=said,
        backtest=progress.best_figures,
    )
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


class Trainer:
    """The loop. `run` may be called once; it resumes from the checkpoint if there is one."""

    def __init__(
        self,
        options: TrainOptions,
        config: ForecasterConfig,
        series: Sequence[SplitSeries],
        make: Callable[[ForecasterConfig], Forecaster] = Forecaster,
    ) -> None:
        self.options, self.config, self.series = options, config, series
        self.compute = choose(options.device, options.precision)
        torch.manual_seed(options.seed)
        self.forecaster = make(config).train()  # on the CPU: a seed's weights are the same on every device
        if options.init is not None:
            start = shorten(restore_bundle(options.init), config.horizon)
            self.forecaster.load_state_dict(start.state_dict())
        self.forecaster.to(self.compute.device)
        self.averaged = AveragedModel(self.forecaster, avg_fn=self._averaged)
        self.window = options.window
        self.sampler = WindowSampler(series, config, window=self.window, origins=options.origins, batch=options.batch)
        self.optimizer = torch.optim.AdamW(
            self.forecaster.parameters(), lr=options.lr, weight_decay=options.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            options.lr,
            total_steps=options.epochs * options.batches + 1,
            pct_start=_WARM_UP_SHARE,
        )
        self.levels = torch.tensor(config.quantiles, device=self.compute.device)
        self._parts: dict[str, Stateful] = {
            "forecaster": self.forecaster,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def _averaged(self, old: Tensor, new: Tensor, _updates: Tensor | int) -> Tensor:
        # The count in `_updates` is on the device of the weights; reading it would wait for the device.
        return self._average(old, new, int(self.averaged.n_averaged))

    def _average(self, old: Tensor, new: Tensor, updates: int) -> Tensor:
        """Update the average: a polynomial-decay one (Shamir & Zhang 2013) until its span is that of `averaging`.

        So it forgets the initial weights, and averages early epochs, which are the best with few data, like late ones.
        """
        decay = min(self.options.averaging, (1 + updates) / (1 + _AVERAGING_POWER + updates))
        return old.lerp(new, 1 - decay)

    def run(self, on_epoch: Callable[[EpochRecord], None] | None = None) -> Progress:
        """Train until the epochs or the patience are used up; return the best weights and the progress."""
        options = self.options
        progress = Progress()
        kept = parallel.from_first(lambda: read(options.checkpoint))
        if options.checkpoint is not None and kept is not None:
            progress = restore(options.checkpoint, kept, self._identity(), self._parts)
        elif options.init is not None:  # weights that training cannot improve stay as they were
            progress.keep(self.averaged.eval().module.state_dict(), self.validate(), epoch=0)
        if on_epoch is not None:
            for record in progress.curve:
                on_epoch(record)
        silent = self._is_silent()
        total = options.epochs * options.batches
        with tqdm(total=total, initial=progress.epoch * options.batches, disable=silent, unit="batch") as bar:
            while progress.epoch < options.epochs and progress.epoch - progress.best_epoch < options.patience:
                self._epoch(progress, bar)
                if options.checkpoint is not None and parallel.is_first():
                    self._save(options.checkpoint, progress)
                if on_epoch is not None:
                    on_epoch(progress.curve[-1])
        return progress

    def _save(self, path: Path, progress: Progress) -> None:
        try:
            save(path, progress, self._identity(), self._parts)
        except OutputError as error:  # it costs a continuation at most, and the run goes on
            log.warning("epoch %d has no checkpoint: %s", progress.epoch, error)

    def _is_silent(self) -> bool:
        return self.options.quiet or not sys.stderr.isatty() or not parallel.is_first()

    def refit(self, epochs: int) -> dict[str, Tensor]:
        """Train `epochs` epochs of the same schedule without validation; return the averaged weights.

        Call it instead of `run`. It writes no checkpoint: a run that is stopped here repeats the refit.
        """
        with tqdm(total=epochs * self.options.batches, disable=self._is_silent(), unit="batch", desc="all data") as bar:
            for number in range(epochs):
                self._train(number, bar)
        return dict(self.averaged.module.state_dict())

    def finished(self, weights: Mapping[str, Tensor]) -> Forecaster:
        """Return the forecaster with these weights, on the CPU, where it is exported; training cannot continue."""
        self.forecaster.to("cpu").load_state_dict(weights)
        return self.forecaster

    def _train(self, number: int, bar: tqdm[Any]) -> float:
        """Take the steps of one epoch; return the mean loss."""
        seed = self.options.seed
        # For dropout, which differs between processes; windows have their own.
        torch.manual_seed((seed + parallel.rank() * _SEEDS_PER_PROCESS) * _EPOCHS_PER_SEED + number)
        batches = self.sampler.epoch(seed, number, self.options.batches, parallel.own_share())
        steps = [self._step(self.compute.put(batch), bar) for batch in batches]
        # Read once an epoch, so that nothing waits for a GPU in between.
        losses: list[float] = parallel.summed(torch.stack(steps)).tolist()
        return sum(losses) / len(losses)

    def _epoch(self, progress: Progress, bar: tqdm[Any]) -> None:
        started = time.perf_counter()
        training = self._train(progress.epoch, bar)
        self.averaged.eval()
        figures = self.validate()
        progress.epoch += 1
        loss = figures["scaled_loss"]
        progress.curve.append(EpochRecord(progress.epoch, training, loss))
        if loss < progress.best_loss:
            progress.keep(self.averaged.module.state_dict(), figures, epoch=progress.epoch)
        progress.seconds += time.perf_counter() - started
        bar.set_postfix(epoch=progress.epoch, validation=f"{loss:.4f}", best=f"{progress.best_loss:.4f}")

    def _identity(self) -> dict[str, Any]:
        """Return the facts that a resumed run must share: the options that shape the result, and the amount of data."""
        options = {key: value for key, value in asdict(self.options).items() if key not in _MAY_DIFFER}
        plain = {"data": self.options.source, "init": str(self.options.init), "training_events": self.sampler.events}
        return options | plain

    def _step(self, batch: Batch, bar: tqdm[Any]) -> Tensor:
        """Take one step of the optimiser; return this process's part of the loss, `[]`.

        Nothing in here reads a value of the device.
        """
        forecast = self.forecaster(batch.sequences, batch.origins, self.compute.products)
        loss, targets = quantile_loss(self.levels, forecast, batch.target, batch.scale, batch.weight)
        loss = loss / parallel.summed(targets).clamp(min=1)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch has no annotation here
        parallel.sum_gradients(self.forecaster.parameters())
        torch.nn.utils.clip_grad_norm_(self.forecaster.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.schedule.step()
        self.averaged.update_parameters(self.forecaster)
        bar.update()
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """Return the figures of the averaged weights on the validation part of every series, in float32, as served."""
        figures = ValidationFigures(self.config.quantiles)
        origins = max(_VALIDATION_ORIGINS, math.ceil(_VALIDATION_IN_ALL / len(self.series)))
        batches = validation_batches(
            self.series,
            self.config,
            window=self.window,
            origins=origins,
            batch=_VALIDATION_BATCH,
            share=parallel.own_share(),
        )
        with torch.no_grad():
            for batch in map(self.compute.put, batches):
                figures.add(self.averaged.module(batch.sequences, batch.origins), batch.target, batch.scale)
        figures.pool(parallel.summed)
        return figures.figures()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads; restore PyTorch's setting afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
