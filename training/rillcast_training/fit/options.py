"""The options of a training run, and the shape of forecaster that they ask for. Owns names, defaults and limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rillcast.bundle.covariates import Kind
from rillcast.bundle.frequency import canonical
from rillcast.errors import SettingsError
from rillcast_training.data.tables import Columns
from rillcast_training.export.restore import restore
from rillcast_training.fit.compute import DeviceName, PrecisionName
from rillcast_training.model.features import default_context, default_seasons
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig

DEFAULT_QUANTILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What to train on, what to make of it, and where it goes."""

    data: Path | None = None
    """`unique_id, ds, y` as CSV, JSON Lines or Parquet, or the name of a built-in data set."""
    columns: Columns | None = None
    """How the columns of `data` are named, where not like that."""
    hold_out: int = 0
    """So many of the newest slots of `data` are left for an evaluation: nothing of them is seen."""
    synthetic: int = 0
    """So many synthetic series are trained on, beside the data or in place of any."""
    covariates: tuple[tuple[str, Kind], ...] = ()
    """Columns of `data` that are inputs too, each with its kind (`rillcast.bundle.covariates`); with `init`, its
    own."""
    freq: str
    """Frequency of the slots, such as `1h`, or `1mo` for calendar months."""
    horizon: int
    """Slots to forecast."""
    out: Path
    """The bundle; the training curve goes beside it as `<out>.training.png`."""
    init: Path | None = None
    """A bundle, or the name of a shipped one, whose weights are trained further. Its cells, seasons and context are
    kept; the horizon may be shorter than its own."""
    cell: str = "gru"
    """A name of `rillcast_training.model.cells.CELLS`."""
    hidden: int = 64
    """Width of a recurrent layer."""
    layers: int = 1
    """Recurrent layers."""
    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    """Increasing levels in (0, 1)."""
    seasons: tuple[int, ...] | None = None
    """Main season in slots and, optionally, a longer one; by default what the frequency suggests."""
    context: int | None = None
    """Slots in the lag window; by default the longest season, and two of the main one, three if it is short."""
    max_gap: int | None = None
    """A longer gap starts a stream anew; by default the context."""
    calendar: bool = True
    """Whether the positions in day, week and year are inputs, as the frequency has them."""
    dropout: float = 0.1
    """Share of inputs left out at random in training."""
    epochs: int = 30
    """Passes of `batches` batches."""
    batches: int = 40
    """Batches per epoch."""
    batch: int = 32
    """Windows per batch. Twice as many steps on half of it cost the same and learn more (docs/accuracy.md)."""
    window: int = 128
    """Events in a training window. Longer ones cost more and learn less from few series (docs/accuracy.md)."""
    origins: int = 32
    """Forecasts per window that count in the loss, drawn anew each time."""
    lr: float = 3e-3
    """Peak learning rate of the one-cycle schedule."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    averaging: float = 0.99
    """Decay of the moving average of the weights, which is what is validated and exported."""
    patience: int = 10
    """Epochs without a better validation loss after which training stops."""
    validation: float = 0.1
    """Share at the end of every series that is validated on, never trained on; at least one horizon."""
    balance: float = 0.0
    """How far larger series count for more: by their scale to this power. 0 favours MASE, 1 a pooled loss (WQL)."""
    refit: bool = False
    """Whether to train once more on all data, the validation part too, for the epochs that were best."""
    refit_if_stopped: bool = False
    """The same, but only where the patience ended the run: data were its limit, not epochs (docs/accuracy.md)."""
    seed: int = 0
    """Of everything random."""
    threads: int = 1
    """CPU threads. The tensors are small: on two busy cores, two threads took three times as long as one."""
    device: DeviceName = "auto"
    """Where the steps are taken; `auto` is CUDA where PyTorch can use it, else the CPU. The bundle is the same kind."""
    precision: PrecisionName = "auto"
    """Of the products in cells and head; `auto` is bfloat16 on a GPU that has it, else float32. All else is float32."""
    name: str | None = None
    """The model's name; the name of `out` by default."""
    checkpoint: Path | None = None
    """Written after every epoch; resumed from if it exists."""
    quiet: bool = False
    """No progress bar."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batches", "batch", "window", "origins", "patience", "threads"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.data is None and not self.synthetic:
            raise SettingsError("nothing to train on: name a data set, or ask for synthetic series")
        if self.synthetic < 0:
            raise SettingsError(f"synthetic is {self.synthetic}, expected a number of series")
        if self.covariates and self.data is None:
            raise SettingsError("covariates are columns of a data set, and there is none: name one")
        if self.covariates and self.init is not None:
            raise SettingsError("covariates cannot be changed with init: the weights are for those that it has")
        if not 0 < self.validation < 1:
            raise SettingsError(f"validation is {self.validation}, expected a share between 0 and 1")
        if not self.lr > 0 or not 0 <= self.averaging < 1:
            raise SettingsError(f"lr is {self.lr}, averaging {self.averaging}: expected > 0, and 0 to below 1")

        if self.refit and self.refit_if_stopped:
            raise SettingsError(
                "refit and refit_if_stopped exclude each other: always, or only where patience ended it"
            )
        if not 0 <= self.balance <= 1:
            raise SettingsError(f"balance is {self.balance}, expected 0 to 1")

    def forecaster(self) -> ForecasterConfig:
        """Return the shape of the forecaster.

        Raises:
            SettingsError: the options contradict each other or the frequency is none.
            BundleError, DataError: `init` cannot be trained further.
        """
        try:
            freq = canonical(self.freq)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        if self.init is not None:
            return self._forecaster_of(self.init, freq)
        try:
            seasons = self.seasons or default_seasons(self.freq)
            context = self.context or default_context(seasons)
            config = ForecasterConfig(
                freq=freq,
                horizon=self.horizon,
                quantiles=self.quantiles,
                seasons=seasons,
                context=context,
                max_gap=self.max_gap or context,
                cell=self.cell,
                hidden=self.hidden,
                layers=self.layers,
                calendar=self.calendar,
                dropout=self.dropout,
            )
            Forecaster(config)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        return config

    @property
    def source(self) -> str:
        """What is trained on, in a few words."""
        made = f"{self.synthetic} synthetic series" if self.synthetic else ""
        return " + ".join(part for part in (self.data.name if self.data else "", made) if part)

    def _forecaster_of(self, init: Path, freq: str) -> ForecasterConfig:
        """Return the shape of the forecaster in a bundle, with the horizon of these options."""
        config = restore(init).config
        for name, asked, there in (
            ("freq", freq, canonical(config.freq)),
            ("quantiles", self.quantiles, config.quantiles),
        ):
            if asked != there:
                raise SettingsError(
                    f"{name} is {asked}, but {init} has {there}, and its weights are only good for that"
                )
        if not 1 <= self.horizon <= config.horizon:
            raise SettingsError(f"horizon is {self.horizon}, expected 1 to {config.horizon}, which {init} has")
        return replace(config, horizon=self.horizon, dropout=self.dropout)
