"""The search for a forecaster that fits the data and the time per event: `rillcast tune`.

Owns: the search space, the measure of cost, the report. Does not know: how a forecaster is trained
(`rillcast_training.fit.training`), the Pareto front (`rillcast_training.fit.pareto`), the picture.

Every trial trains with a small budget, validates on the end of every series, which it never trained on, and exports its
forecaster. Its cost is that of the exported bundle in the serving engine. Optuna's multivariate TPE proposes the
trials, with both objectives (Bergstra et al. 2011, Algorithms for hyper-parameter optimization; Ozaki et al. 2022,
Multiobjective tree-structured Parzen estimator). A search may be stopped at any moment and continued later
(`rillcast_training.fit.study`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from torch import nn

from rillcast.bundle.bundle import Bundle, seal
from rillcast.engine import device
from rillcast.engine.batcher import Batching
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import DataError
from rillcast.events import EventBatch
from rillcast.outputs import check
from rillcast_training.data.series import Series
from rillcast_training.data.split import SplitSeries, split_to_validate
from rillcast_training.data.traces import Trace
from rillcast_training.export.bundle import describe, to_onnx
from rillcast_training.export.experts import describe_experts, experts_to_onnx
from rillcast_training.fit.compute import choose
from rillcast_training.fit.kind import Kind, kind_of
from rillcast_training.fit.on_experts import TraceTrainer, experts_shape, traces_of, with_network
from rillcast_training.fit.options import TrainOptions, TuneOptions
from rillcast_training.fit.pareto import Candidate, knee, pareto_front
from rillcast_training.fit.shape import forecaster_shape
from rillcast_training.fit.study import open_study, picture_of, usable
from rillcast_training.fit.trainer import Trainer
from rillcast_training.fit.training import series_of, threads
from rillcast_training.model.experts.defaults import default_seasons as seasons_of_experts
from rillcast_training.model.features import default_context, default_seasons
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig

_COST_STREAMS: Final = 256
_COST_CALLS: Final = 5
_COST_ROUNDS: Final = 7
_COST_START_MS: Final = 1_704_067_200_000  # 2024-01-01


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One finished trial.

    Attributes:
        number: Number in the study.
        options: Its options, by name of `rillcast train`.
        loss: Validation loss, in units of the seasonal-naive error.
        microseconds: Engine time per event of its exported bundle, in batches of 256 streams.
        parameters: Number of weights.
        state_bytes: State per stream.
        seconds: Duration.
    """

    number: int
    options: dict[str, Any]
    loss: float
    microseconds: float
    parameters: int
    state_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TuneReport:
    """Results of the study after this call.

    Attributes:
        trials: All finished trials, by number.
        front: Numbers of the trials on the Pareto front, cheapest first.
        accurate: Number of the trial with the lowest loss.
        recommended: Number of the front's knee.
        ran: Trials of this call.
    """

    trials: tuple[TrialResult, ...]
    front: tuple[int, ...]
    accurate: int
    recommended: int
    ran: int

    def of(self, number: int) -> TrialResult:
        """Return a trial by its number."""
        return next(trial for trial in self.trials if trial.number == number)

    def by_hidden(self) -> dict[int, TrialResult]:
        """Return the best trial of each width: the answer to 'which hidden size?'."""
        best: dict[int, TrialResult] = {}
        for trial in sorted(self.trials, key=lambda one: one.loss):
            best.setdefault(int(trial.options["hidden"]), trial)
        return dict(sorted(best.items()))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def contexts(options: TuneOptions) -> tuple[int, ...]:
    """Return lag windows to choose from: little more than one main season, two of it, the default, and twice that."""
    seasons = options.base.seasons or default_seasons(options.base.freq)
    usual = options.base.context or default_context(seasons)
    main = seasons[0]
    return tuple(sorted({max(main + main // 2, main + 1), 2 * main + (main == 1), usual, 2 * usual}))


def tune(
    options: TuneOptions,
    progress: Callable[[TrialResult], None] = lambda _trial: None,
    on_kind: Callable[[Kind], None] = lambda _: None,
) -> TuneReport:
    """Search until the budget is used up, and recommend.

    Args:
        options: Space and budget.
        progress: Called with each finished trial.
        on_kind: Called with the kind of network before the first trial.

    Raises:
        SettingsError: the options contradict each other, or the study's file belongs to other data or options.
        DataError: the data cannot be used.
        DeviceError: the device or the precision that was asked for is unavailable.
        OutputError: the study's file or database cannot be written.
    """
    file = options.study if isinstance(options.study, Path) else None
    check({"DATA": options.base.data}, {"--study": file, "the picture": picture_of(options.study)})
    compute = choose(options.base.device, options.base.precision)
    series, shape = series_of(options.base, forecaster_shape(options.base))
    kind = kind_of(options.base, series)
    on_kind(kind)
    options = dataclasses.replace(options, base=kind.options)
    study = open_study(options.study, _identity(options), options.base.seed)
    splits = _Splits(series, options.base, shape)
    ran: list[int] = []  # by this call: a database may have those of others at the same time

    def done(_study: optuna.Study, trial: FrozenTrial) -> None:
        ran.append(trial.number)
        progress(_result(trial))

    with usable(options.study):
        with threads(options.base.threads), compute.repeatable():
            study.optimize(
                lambda trial: _run(trial, options, splits),
                n_trials=options.trials,
                timeout=options.budget_s,
                callbacks=[done],
            )
        return report(study, ran=len(ran))


def report(study: optuna.Study, *, ran: int) -> TuneReport:
    """Return the results of a study."""
    trials = tuple(_result(trial) for trial in study.get_trials(states=[TrialState.COMPLETE]))
    if not trials:
        raise DataError("no trial finished; give the search a larger budget")
    front = pareto_front([Candidate(one.number, one.loss, one.microseconds) for one in trials])
    return TuneReport(trials, tuple(one.number for one in front), front[-1].number, knee(front).number, ran)


class _Splits:
    """The series, cut into training and validation part, for each shape of a trial."""

    def __init__(self, series: Sequence[Series], base: TrainOptions, shape: ForecasterConfig) -> None:
        self._series, self._base, self._shape, self.covariates = series, base, shape, shape.covariates

    @cached_property
    def traces(self) -> list[Trace]:
        """What networks on top of experts see of the series: the same in all trials, as experts learn by themselves."""
        return traces_of(self.of(self._shape), experts_shape(self._base, self._shape.freq), quiet=True)

    def of(self, config: ForecasterConfig) -> list[SplitSeries]:
        """Return the split series.

        Raises:
            DataError: no series can be validated on.
        """
        return split_to_validate(self._series, config, self._base.validation, source=self._base.source)


def _identity(options: TuneOptions) -> dict[str, Any]:
    """Return the facts that all calls on one study share, with the space, on which Optuna's distributions depend."""
    base = options.base
    return {
        "data": base.source,
        "freq": base.freq,
        "horizon": base.horizon,
        "quantiles": list(base.quantiles),
        **({"covariates": [list(one) for one in base.covariates]} if base.covariates else {}),
        **({} if base.aggregate is None else {"aggregate": base.aggregate.as_settings()}),
        "seasons": list(base.seasons or _usual_seasons(base)),
        **(
            {"experts": True, "dropout": list(options.dropout)}
            if base.experts
            else {"contexts": list(contexts(options))}
        ),
        "epochs": base.epochs,
        "batches": base.batches,
        "validation": base.validation,
        **{name: list(values) for name, values in options.space._asdict().items()},
        "lr": list(options.lr),
    }


def _run(trial: Trial, options: TuneOptions, splits: _Splits) -> tuple[float, float]:
    """Train the proposed forecaster; return its loss and its cost."""
    started, space = time.perf_counter(), options.space
    train_options = dataclasses.replace(
        options.base,
        cell=trial.suggest_categorical("cell", space.cells),
        hidden=trial.suggest_categorical("hidden", space.hidden),
        layers=trial.suggest_categorical("layers", space.layers),
        lr=trial.suggest_float("lr", *options.lr, log=True),
        checkpoint=None,
        quiet=True,
    )
    if options.base.experts:
        dropout = trial.suggest_categorical("dropout", options.dropout)
        trained = _on_experts(dataclasses.replace(train_options, dropout=dropout), splits)
    else:
        context = trial.suggest_categorical("context", contexts(options))
        seasons = _seasons_within(options.base, context)
        trained = _alone(dataclasses.replace(train_options, context=context, max_gap=None, seasons=seasons), splits)
    loss, parameters, bundle, seasons = trained
    trial.set_user_attr("parameters", parameters)
    trial.set_user_attr("state_bytes", bundle.metadata.row_bytes)
    trial.set_user_attr("seasons", list(seasons))
    trial.set_user_attr("seconds", round(time.perf_counter() - started, 3))
    return loss, cost_per_event(bundle) * 1e6


def _alone(options: TrainOptions, splits: _Splits) -> tuple[float, int, Bundle, tuple[int, ...]]:
    """Train a network; return its loss, its number of weights, its bundle in memory, and its seasons."""
    config = dataclasses.replace(forecaster_shape(options), covariates=splits.covariates)
    trainer = Trainer(options, config, splits.of(config))
    progress = trainer.run()
    forecaster = trainer.finished(progress.best_weights)
    return progress.best_loss, _parameters(forecaster), _bundle(forecaster), config.seasons


def _on_experts(options: TrainOptions, splits: _Splits) -> tuple[float, int, Bundle, tuple[int, ...]]:
    """Do the same with a network on top of experts."""
    config = forecaster_shape(options)
    experts = experts_shape(options, config.freq)
    trainer = TraceTrainer(options, config, experts, splits.traces)
    progress = trainer.run()
    whole = with_network(experts, trainer.finished(progress.best_weights)).eval()
    bundle = Bundle.from_bytes(seal(experts_to_onnx(whole), describe_experts(whole, name="trial")))
    return progress.best_loss, _parameters(whole), bundle, experts.seasons


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _usual_seasons(base: TrainOptions) -> tuple[int, ...]:
    return seasons_of_experts(base.freq) if base.experts else default_seasons(base.freq)


def _seasons_within(base: TrainOptions, context: int) -> tuple[int, ...]:
    """Return the seasons that fit into a lag window: all of them, or the main one alone."""
    seasons = base.seasons or default_seasons(base.freq)
    return tuple(season for season in seasons if season <= context)


def _bundle(forecaster: Forecaster) -> Bundle:
    """Return the forecaster as a bundle in memory. It is only measured, so there is no parity check."""
    forecaster.eval()
    metadata = describe(forecaster, name="trial", training={}, backtest={})
    return Bundle.from_bytes(seal(to_onnx(forecaster), metadata))


def cost_per_event(bundle: Bundle) -> float:
    """Return seconds of engine time per event on the CPU, in batches of 256 streams.

    It is the minimum of several rounds, because other load on the machine can only add to it.
    """
    engine = StepEngine(bundle, device.choose("cpu"), batching=Batching(_COST_STREAMS))
    names = [str(number) for number in range(_COST_STREAMS)]
    y = np.random.default_rng(0).normal(100, 10, _COST_STREAMS).astype(np.float32)
    period, best = 0, float("inf")
    for _ in range(_COST_ROUNDS):
        seconds = 0.0
        for _ in range(_COST_CALLS):
            ds = np.full(_COST_STREAMS, bundle.metadata.frequency.ahead(_COST_START_MS, period), np.int64)
            events = EventBatch.of(names, ds, y, first_offset=period * _COST_STREAMS)
            started = time.perf_counter()
            engine.step(events)
            seconds += time.perf_counter() - started
            period += 1
        best = min(best, seconds)
    return best / (_COST_CALLS * _COST_STREAMS)


def _result(trial: FrozenTrial) -> TrialResult:
    loss, microseconds = trial.values
    return TrialResult(
        trial.number,
        trial.params | {"seasons": trial.user_attrs["seasons"]},
        loss,
        microseconds,
        trial.user_attrs["parameters"],
        trial.user_attrs["state_bytes"],
        trial.user_attrs["seconds"],
    )
