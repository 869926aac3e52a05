"""The loop of training: optimiser, schedule, averaging, early stopping, checkpoints.

Owns: the loop. Does not know: where series come from, how a bundle is written, the step's semantics.

Invariant: an epoch's randomness is a function of the seed and its number, and a checkpoint is written at the end of
every epoch. So a run that is stopped and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from rillcast.errors import OutputError
from rillcast_training.data.split import SplitSeries
from rillcast_training.data.windows import Batch, WindowSampler, validation_batches
from rillcast_training.export.restore import restore as restore_bundle
from rillcast_training.export.restore import shorten
from rillcast_training.fit import parallel
from rillcast_training.fit.checkpoint import EpochRecord, Progress, Stateful, read, restore, save
from rillcast_training.fit.compute import choose
from rillcast_training.fit.losses import ValidationFigures, quantile_loss
from rillcast_training.fit.options import TrainOptions
from rillcast_training.model.forecaster import Forecast, Forecaster, ForecasterConfig

log = logging.getLogger(__name__)

VALIDATION_BATCH: Final = 128
CLIP_NORM: Final = 1.0
_VALIDATION_ORIGINS: Final = 24  # per series, at least
_VALIDATION_IN_ALL: Final = 1_200  # over all series, at least: fewer cannot distinguish the epochs of a few series
_MAY_DIFFER: Final = frozenset(  # when resuming
    {"out", "name", "checkpoint", "quiet", "track", "scratch", "patience", "refit", "refit_if_stopped"}
    | {"threads", "device", "precision"}
)
_EPOCHS_PER_SEED: Final = 1_000_003
_SEEDS_PER_PROCESS: Final = 7_919
_WARM_UP_SHARE: Final = 0.1  # share of all steps, until the learning rate peaks
_AVERAGING_POWER: Final = 2  # the weights of a step grow linearly with its number


class Sampler(Protocol):
    """What draws the windows of an epoch."""

    @property
    def events(self) -> int:
        """Number of events that may be drawn."""
        ...

    def epoch(self, seed: int, number: int, batches: int, share: slice = ...) -> Iterator[Batch]:
        """Yield the batches of epoch `number`; of each, the rows of `share`."""
        ...


class Trainer:
    """The loop. `run` may be called once; it resumes from the checkpoint if there is one.

    Args:
        options: Options of the run.
        config: Shape of the forecaster.
        series: What it is trained on.
        make: Returns the module, which takes a batch's sequences and origins, and returns a `Forecast`.
    """

    def __init__(
        self,
        options: TrainOptions,
        config: ForecasterConfig,
        series: Sequence[SplitSeries],
        make: Callable[[ForecasterConfig], Any] = Forecaster,
    ) -> None:
        self.options, self.config, self.series = options, config, series
        self.compute = choose(options.device, options.precision)
        torch.manual_seed(options.seed)
        self.forecaster = make(config).train()  # on the CPU: a seed's weights are the same on every device
        if options.init is not None:
            self.forecaster.load_state_dict(self._weights_of(options.init))
        self.forecaster.to(self.compute.device)
        self.averaged = AveragedModel(self.forecaster, avg_fn=self._averaged)
        self.window = options.window
        self.sampler = self._sampler()
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

    @property
    def count(self) -> int:
        """Number of series."""
        return len(self.series)

    def _weights_of(self, init: Path) -> Mapping[str, Tensor]:
        """Return the weights of a bundle that is trained further."""
        return shorten(restore_bundle(init), self.config.horizon).state_dict()

    def _sampler(self) -> Sampler:
        """Return what draws the windows of an epoch."""
        options = self.options
        return WindowSampler(self.series, self.config, window=self.window, origins=options.origins, batch=options.batch)

    def _validation(self, origins: int) -> Iterator[Batch]:
        """Return the validation part of every series that has one, `origins` forecasts of each."""
        return validation_batches(
            self.series,
            self.config,
            window=self.window,
            origins=origins,
            batch=VALIDATION_BATCH,
            share=parallel.own_share(),
        )

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

    def finished(self, weights: Mapping[str, Tensor]) -> Any:
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
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not annotate Tensor.backward
        parallel.sum_gradients(self.forecaster.parameters())
        torch.nn.utils.clip_grad_norm_(self.forecaster.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.schedule.step()
        self.averaged.update_parameters(self.forecaster)
        bar.update()
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """Return the figures of the averaged weights on the validation part of every series, in float32, as served."""
        return self._figures(self.averaged.module)

    def _figures(self, forecast: Callable[[Any, Tensor], Forecast]) -> dict[str, float]:
        """Return the figures of forecasts on the validation part of every series."""
        figures = ValidationFigures(self.config.quantiles)
        origins = max(_VALIDATION_ORIGINS, math.ceil(_VALIDATION_IN_ALL / self.count))
        with torch.no_grad():
            for batch in map(self.compute.put, self._validation(origins)):
                figures.add(forecast(batch.sequences, batch.origins), batch.target, batch.scale)
        figures.pool(parallel.summed)
        return figures.figures()
