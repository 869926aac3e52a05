"""Options of a training run and of a search: names, defaults, limits, and how a command line offers them.

Owns: `TrainOptions`, `TuneOptions`, and a `Flag` on each field that `rillcast train` or `rillcast tune` takes.
Does not know: argparse, networks, data.
Invariant: importing this module loads neither PyTorch nor a library of tables, as every `rillcast` command does it.

A field's docstring is its reference. Its first sentence is the help text of the flag.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, get_args

from rillcast.bundle.covariates import KINDS, Kind
from rillcast.errors import SettingsError
from rillcast_training.data.columns import Aggregate, Columns

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda"]
PrecisionName: TypeAlias = Literal["auto", "float32", "bfloat16"]

DEFAULT_QUANTILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CELL_NAMES: Final = ("elman", "gru", "lstm", "mingru", "slstm", "lru")  # docs/recurrence.md compares them
_SYNTHETIC: Final = 2_000
_WIDTH: Final = 64
_WIDTH_ON_EXPERTS: Final = 32
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """How a field is given on a command line.

    Attributes:
        group: Heading of the flag in `rillcast train --help`; empty for the command's own options.
        tune: Heading in `rillcast tune --help`; None if only `rillcast train` takes it. Ignored in `TuneOptions`.
        tune_default: Default in `rillcast tune`, where it differs from the field's.
        help: Help text, where the first sentence of the field's docstring does not fit.
        name: Name of the flag; by default the field's name, with `--no-` before it if the default is True.
        metavar: Name of the value in the help text; by default argparse's own.
        choices: The only values allowed.
        parse: Function from text to value, which raises `ValueError` with the whole message; by default the field's
            type.
        bare: Value of the flag when it is given without one.
        repeated: Whether the flag may be given several times; the values are collected.
        excludes: Fields with the same word here exclude each other.
        init: Effect of `--init`. `default`: the bundle's own value is the default, and without `--init` a field with
            no default is required. `fixed`: the flag is refused.
    """

    group: str = ""
    tune: str | None = None
    tune_default: Any = None
    help: str = ""
    name: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    bare: Any = None
    repeated: bool = False
    excludes: str = ""
    init: Literal["given", "default", "fixed"] = "given"


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list."""
    return tuple(word for word in text.split(",") if word)


def numbers(text: str) -> tuple[int, ...]:
    """Return comma-separated whole numbers.

    Raises:
        ValueError: the text is something else.
    """
    try:
        return tuple(int(word) for word in words(text))
    except ValueError as error:
        raise ValueError(f"{text!r}: expected whole numbers separated by commas") from error


def levels(text: str) -> tuple[float, ...]:
    """Return comma-separated quantile levels.

    Raises:
        ValueError: the text is something else.
    """
    try:
        return tuple(float(level) for level in text.split(","))
    except ValueError as error:
        raise ValueError(f"{text!r}: expected numbers separated by commas") from error


def covariate(text: str) -> tuple[str, Kind]:
    """Return name and kind of a covariate from `NAME:KIND`.

    Raises:
        ValueError: the text is something else.
    """
    name, _, kind = text.rpartition(":")
    if not name or kind not in KINDS:
        raise ValueError(f"{text!r}: expected NAME:KIND, KIND one of {', '.join(KINDS)}")
    return name, kind


def seconds(text: str) -> float:
    """Return a duration such as `90s`, `20m` or `2h` in seconds.

    Raises:
        ValueError: the text is something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None:
        raise ValueError(f"{text!r}: expected a number and s, m or h, as in 20m")
    return float(match[1]) * _UNIT_S[match[2]]


def study_place(text: str) -> Path | str:
    """Return the file of a study, or the address of a database as it is."""
    return text if "://" in text else Path(text).expanduser()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Data, shape of the forecaster, and training."""

    data: Path | None = None
    """File of `unique_id, ds, y` as CSV, JSON Lines or Parquet, or name of a built-in data set."""
    columns: Columns | None = None
    """Names of the columns of `data`; by default `unique_id, ds, y`."""
    scratch: Annotated[Path | None, Flag(metavar="FOLDER")] = None
    """Folder on a disk that keeps the series, for tables larger than memory. DATA is then Parquet, a file or a folder
    of them, and is read in parts."""
    hold_out: Annotated[int, Flag(metavar="PERIODS")] = 0
    """Newest periods of DATA to leave for `rillcast evaluate`. The run never sees them."""
    synthetic: Annotated[int, Flag(metavar="SERIES", bare=_SYNTHETIC)] = 0
    """Number of synthetic series to train on, with or without DATA (2000 if no number is given)."""
    init: Annotated[Path | None, Flag(metavar="MODEL")] = None
    """Bundle to train further, one that `rillcast train` made or a shipped one with a network. Its cells, seasons and
    context are kept. The horizon may be shorter than its own, but not on top of experts."""
    out: Annotated[Path, Flag()]
    """Bundle to write. The training curve is `<out>.training.png`."""
    freq: Annotated[str, Flag(tune="", init="default")]
    """Length of a period: 1h, 30min, 1d, 1mo for calendar months, ..."""
    horizon: Annotated[int, Flag(tune="", init="default")]
    """Periods to forecast."""
    covariates: Annotated[
        tuple[tuple[str, Kind], ...],
        Flag(name="--covariate", metavar="NAME:KIND", parse=covariate, repeated=True, init="fixed"),
    ] = ()
    """Column that is an input too, and its kind: past, known (also in the rows ahead), static or category; repeatable.
    With `init`, its own."""
    cell: Annotated[str, Flag(group="model", choices=CELL_NAMES, init="fixed")] = "gru"
    """Recurrent cell."""
    hidden: Annotated[int | None, Flag(group="model", init="fixed")] = None
    """Width of a recurrent layer (default: 32 on top of experts, else 64)."""
    layers: Annotated[int, Flag(group="model", init="fixed")] = 1
    """Recurrent layers."""
    quantiles: Annotated[tuple[float, ...], Flag(group="model", parse=levels, init="default")] = DEFAULT_QUANTILES
    """Increasing quantile levels in (0, 1), separated by commas."""
    seasons: Annotated[
        tuple[int, ...] | None,
        Flag(group="model", name="--season", metavar="PERIODS[,PERIODS]", parse=numbers, init="fixed"),
    ] = None
    """Main season and, optionally, a longer one, in periods (default: by frequency)."""
    context: Annotated[int | None, Flag(group="model", init="fixed")] = None
    """Periods in the lag window (default: by season). The default holds the longest season, and two of the main one,
    three if it is short."""
    max_gap: Annotated[int | None, Flag(group="model", init="fixed")] = None
    """Longest gap, in periods, that keeps the state of a stream (default: the context)."""
    calendar: Annotated[
        bool, Flag(group="model", init="fixed", help="leave out the positions in day, week and year as inputs")
    ] = True
    """Whether the positions in day, week and year are inputs, where the frequency has them."""
    experts: Annotated[
        bool | None,
        Flag(
            group="model",
            tune="",
            init="fixed",
            help="train on top of a mixture of experts, or a network alone (default: on top, unless another option or "
            "the data need a network alone; the command says so)",
        ),
    ] = None
    """Whether the network corrects a mixture of experts (docs/experts.md), which learns on each stream by itself. None:
    it does, unless another option or the data need a network alone (`rillcast_training.fit.kind`)."""
    alarms: Annotated[bool, Flag(group="model", help="the bundle says when alarms of a stream open and close")] = False
    """Whether the bundle finds alarms (docs/alarms.md): 88 bytes of state a stream more, and a slower step."""
    name: Annotated[str | None, Flag(group="model")] = None
    """Name of the model in the bundle (default: that of the file)."""
    epochs: Annotated[int, Flag(group="training", tune="each trial", tune_default=10)] = 30
    """Most epochs to train."""
    batches: Annotated[int, Flag(group="training", tune="each trial")] = 40
    """Batches per epoch."""
    batch: Annotated[int, Flag(group="training", tune="each trial")] = 32
    """Windows per batch. Twice as many steps on half of it cost the same and learn more (docs/accuracy.md)."""
    window: Annotated[int, Flag(group="training")] = 128
    """Events in a training window. Longer ones cost more and learn less from few series (docs/accuracy.md)."""
    origins: int = 32
    """Forecasts per window that count in the loss, drawn again for each window."""
    lr: Annotated[float, Flag(group="training")] = 3e-3
    """Peak learning rate of the one-cycle schedule."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    averaging: float = 0.99
    """Decay of the moving average of the weights. The averaged weights are validated and exported."""
    dropout: Annotated[float, Flag(group="training")] = 0.1
    """Share of inputs left out at random in training."""
    patience: Annotated[int, Flag(group="training", tune="each trial", tune_default=4)] = 10
    """Epochs without a better validation loss after which training stops."""
    validation: Annotated[float, Flag(group="training", tune="each trial")] = 0.1
    """Share at the end of every series for validation. It is at least one horizon, and never trained on."""
    balance: Annotated[float, Flag(group="training")] = 0.0
    """Power of a series' scale by which it counts: 0 favours MASE, 1 a pooled loss (WQL)."""
    refit: Annotated[bool, Flag(group="training", excludes="refit")] = False
    """Train once more on all data, with the validation part, for the epochs that were best."""
    refit_if_stopped: Annotated[bool, Flag(group="training", excludes="refit")] = False
    """Refit only where the patience ended the run. Then data were its limit, not epochs (docs/accuracy.md)."""
    seed: Annotated[int, Flag(group="training", tune="")] = 0
    """Seed of everything random."""
    threads: Annotated[int, Flag(group="training", tune="")] = 1
    """CPU threads. The tensors are small: on two busy cores, two threads took three times as long as one."""
    device: Annotated[DeviceName, Flag(group="training", tune="", choices=get_args(DeviceName))] = "auto"
    """Device to train on; `auto` is CUDA where PyTorch can use it, else the CPU. The bundle is the same kind."""
    precision: Annotated[PrecisionName, Flag(group="training", tune="", choices=get_args(PrecisionName))] = "auto"
    """Precision of the products in cells and head; `auto` is bfloat16 on a GPU that has it, else float32. All else is
    float32."""
    checkpoint: Annotated[Path | None, Flag(group="training")] = None
    """File that is written after every epoch, and resumed from if it exists."""
    track: Annotated[str | None, Flag(metavar="mlflow://HOST:PORT/NAME")] = None
    """Log the training as a run of this MLflow server, in the experiment NAME."""
    quiet: Annotated[bool, Flag()] = False
    """Show no progress bar."""

    def __post_init__(self) -> None:
        for name in ("hidden", "epochs", "batches", "batch", "window", "origins", "patience", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value}, expected at least 1")
        if self.data is None and not self.synthetic:
            raise SettingsError("nothing to train on; name a data set, or ask for synthetic series")
        if self.synthetic < 0:
            raise SettingsError(f"synthetic is {self.synthetic}, expected a number of series")
        if self.covariates and self.data is None:
            raise SettingsError("covariates are columns of a data set; name one")
        if self.covariates and self.init is not None:
            raise SettingsError("covariates cannot be changed with init, whose weights are for its own")
        if self.scratch is not None and (self.data is None or self.covariates or self.aggregate is not None):
            raise SettingsError("scratch takes a table of observations as they are: no covariates, no aggregation")
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
        self._check_experts()

    def _check_experts(self) -> None:
        if not self.experts:  # None too: such options are a reason for a network alone
            return
        if self.covariates:
            raise SettingsError(
                "experts take no covariates: they know a stream by its own values alone; leave the covariates out, or "
                "train without experts"
            )
        if self.context is not None or self.max_gap is not None:
            raise SettingsError(
                "experts have neither a context nor a longest gap: they remember seasons, over any gap; leave both "
                "out, or train without experts"
            )

    @property
    def width(self) -> int:
        """Width of a recurrent layer."""
        return self.hidden or (_WIDTH_ON_EXPERTS if self.experts else _WIDTH)

    @property
    def aggregate(self) -> Aggregate | None:
        """How the events of `data` become observations; None = they are."""
        return None if self.columns is None else self.columns.aggregate

    @property
    def source(self) -> str:
        """Name of the data trained on, for titles and reports."""
        made = f"{self.synthetic} synthetic series" if self.synthetic else ""
        return " + ".join(part for part in (self.data.name if self.data else "", made) if part)


class Space(NamedTuple):
    """Shapes of a network to choose from."""

    cells: tuple[str, ...]
    hidden: tuple[int, ...]
    layers: tuple[int, ...]


_SPACE: Final = Space(("gru", "lstm", "elman"), (16, 32, 64, 96, 128), (1, 2))
_SPACE_ON_EXPERTS: Final = Space(("gru",), (16, 24, 32, 48), (1,))


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """Space and budget of a search."""

    base: TrainOptions
    """Options that all trials share: data, frequency, horizon, quantiles, epochs, batches. Its `out` is not written."""
    study: Annotated[Path | str, Flag(metavar="FILE|URL", parse=study_place)]
    """File of the study, or a database that several machines share (postgresql://...); continued if it exists."""
    budget_s: Annotated[float, Flag(name="--budget", parse=seconds)]
    """Time after which no trial begins: 90s, 20m, 2h. The trial that is running then is finished."""
    trials: Annotated[int | None, Flag()] = None
    """Most trials to run now (default: as many as the budget allows)."""
    cells: Annotated[tuple[str, ...] | None, Flag(group="search space", parse=words)] = None
    """Cells to choose from, separated by commas (default: gru; of networks alone gru,lstm,elman)."""
    hidden: Annotated[tuple[int, ...] | None, Flag(group="search space", parse=numbers)] = None
    """Widths to choose from (default: 16,24,32,48; of networks alone 16,32,64,96,128)."""
    layers: Annotated[tuple[int, ...] | None, Flag(group="search space", parse=numbers)] = None
    """Numbers of layers to choose from (default: 1; of networks alone 1,2)."""
    dropout: tuple[float, ...] = (0.0, 0.1, 0.2)
    """Shares of inputs left out at random to choose from, with experts only."""
    lr: tuple[float, float] = (5e-4, 1e-2)
    """Range of peak learning rates, searched on a logarithmic scale."""

    def __post_init__(self) -> None:
        if not self.budget_s > 0 or (self.trials is not None and self.trials < 1):
            raise SettingsError(f"budget is {self.budget_s} s and trials {self.trials}: expected more than nothing")
        space = self.space
        if not all((space.cells, space.hidden, space.layers)) or min(*space.hidden, *space.layers) < 1:
            raise SettingsError("nothing to choose from: cells, hidden and layers each need at least one value")
        if not 0 < self.lr[0] <= self.lr[1]:
            raise SettingsError(f"lr is {self.lr}, expected two rates > 0, the smaller first")

    @property
    def space(self) -> Space:
        """What each trial chooses from."""
        usual = _SPACE_ON_EXPERTS if self.base.experts else _SPACE
        return Space(
            usual.cells if self.cells is None else self.cells,
            usual.hidden if self.hidden is None else self.hidden,
            usual.layers if self.layers is None else self.layers,
        )
