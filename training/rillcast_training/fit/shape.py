"""The shape of forecaster that options ask for: their own, or that of the bundle that they train further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import canonical
from rillcast.errors import SettingsError
from rillcast_training.export.experts import restore_experts
from rillcast_training.export.restore import is_on_experts, restore
from rillcast_training.fit.options import TrainOptions
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.features import default_context, default_seasons
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig
from rillcast_training.model.lags import MEDIAN


def forecaster_shape(options: TrainOptions) -> ForecasterConfig:
    """Return the shape of the forecaster; covariates are declared later, from the data.

    Raises:
        SettingsError: options contradict each other, or the frequency is invalid.
        BundleError, DataError: `init` cannot be trained further.
    """
    try:
        freq = canonical(options.freq)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if options.init is not None:
        return _shape_of_bundle(options, options.init, freq)
    try:
        seasons = options.seasons or default_seasons(options.freq)
        context = options.context or default_context(seasons)
        config = ForecasterConfig(
            freq=freq,
            horizon=options.horizon,
            quantiles=options.quantiles,
            seasons=seasons,
            context=context,
            max_gap=options.max_gap or context,
            cell=options.cell,
            hidden=options.width,
            layers=options.layers,
            calendar=options.calendar,
            dropout=options.dropout,
            alarms=options.alarms,
            fill=MEDIAN,
        )
        Forecaster(config)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return config


def _shape_of_bundle(options: TrainOptions, init: Path, freq: str) -> ForecasterConfig:
    """Return the shape of the forecaster in a bundle, with the horizon, dropout and further alarms of the options."""
    bundle = Bundle.load(init)
    config = _around(restore_experts(bundle).config) if is_on_experts(bundle) else restore(bundle).config
    for name, asked, there in (
        ("freq", freq, canonical(config.freq)),
        ("quantiles", options.quantiles, config.quantiles),
    ):
        if asked != there:
            raise SettingsError(f"{name} is {asked}, but {init} has {there}, and its weights fit only that")
    if is_on_experts(bundle) and options.horizon != config.horizon:
        raise SettingsError(
            f"horizon is {options.horizon}, but {init} has {config.horizon}, and the weights of a network on top of "
            "experts fit only that; leave init out to train a new one"
        )
    if not 1 <= options.horizon <= config.horizon:
        raise SettingsError(f"horizon is {options.horizon}, expected 1 to {config.horizon}, which {init} has")
    return replace(config, horizon=options.horizon, dropout=options.dropout, alarms=options.alarms or config.alarms)


def _around(experts: ExpertsConfig) -> ForecasterConfig:
    """Return the shape by which the series of a mixture of experts are cut; experts need no more of it."""
    main = experts.seasons[:1]
    context = default_context(main)
    return ForecasterConfig(
        freq=experts.freq,
        horizon=experts.horizon,
        quantiles=experts.quantiles,
        seasons=main,
        context=context,
        max_gap=context,
        fill=MEDIAN,
    )
