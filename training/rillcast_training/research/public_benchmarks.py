"""Accuracy on public series, from scratch: train, export, backtest, and print the figures as one JSON object.

    python -m rillcast_training.research.public_benchmarks --data FOLDER [--work FOLDER] [--seeds N] [--finished]
        [--document docs/accuracy.md]

Owns: the public series and their protocols, the two commands that train the models, and the tables in the docs. Does
not know: how training or scoring works. Finished runs are kept in the work folder and not repeated.

Each data set is trained on twice: by a network alone, and by a network on top of a mixture of experts, whose results
have `_on_experts` in their names.

Protocols (the series are not shipped; FOLDER or the variable ACCURACY_DATA says where they are):
    M4 Hourly   m4_hourly_train.csv.gz, m4_hourly_test.csv.gz: 414 series of the M4 competition; trained on the train
                file, one origin per series, its end, 48 steps.
    ETTh1       etth1.csv.gz: seven channels of Zhou et al. (2021), each a stream; trained on the data before
                2018-02-02, 144 origins, every 24 hours from its end on, 24 steps, no refit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from rillcast.bundle.bundle import Bundle
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import BundleError, DataError, RillcastError
from rillcast_training.data.series import Series, load
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.fit.allocator import keep_freed_memory
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.training import train
from rillcast_training.research import drift

DATA_VARIABLE: Final = "ACCURACY_DATA"
UNIVERSAL: Final = "universal:1h"
FREQ: Final = "1h"
_BEGIN: Final = "<!-- measured by rillcast_training.research.public_benchmarks: begin -->"
_END: Final = "<!-- measured by rillcast_training.research.public_benchmarks: end -->"
_EXPERTS_BEGIN: Final = "<!-- measured by rillcast_training.research.public_benchmarks, on experts: begin -->"
_EXPERTS_END: Final = "<!-- measured by rillcast_training.research.public_benchmarks, on experts: end -->"
_ON_EXPERTS: Final = "_on_experts"
_FIGURES: Final = {"mase": "MASE", "smape": "sMAPE", "wql": "WQL", "coverage80": "coverage of 80 %"}

RECIPE: Final[dict[str, Any]] = {"experts": False, "cell": "lstm", "refit_if_stopped": True}
"""Differences from the defaults of `rillcast train`, the same for every data set, of a network alone."""

ON_EXPERTS: Final[dict[str, Any]] = {"experts": True, "hidden": 32}
"""The same, of a network on top of a mixture of experts."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A data set and how it is scored.

    Attributes:
        name: Name in the result.
        files: Files that it needs.
        horizon: Steps.
        test: Hours since the epoch: the first that is not trained on, and the first that is not scored; None = by file.
    """

    name: str
    files: tuple[str, ...]
    horizon: int
    test: tuple[int, int] | None = None

    def split(self, folder: Path) -> tuple[list[Series], list[Series]]:
        """Return the series to train on and those to score.

        Raises:
            DataError: a file is missing.
        """
        for file in self.files:
            if not (folder / file).is_file():
                raise DataError(
                    f"{folder / file} does not exist; {self.name} needs {', '.join(self.files)} in {folder}"
                )
        whole = [load(folder / file, FREQ) for file in self.files]
        if self.test is None:
            return whole[0], whole[1]
        first, end = self.test
        return _cut(whole[0], 0, first), _cut(whole[0], first, end)


PROTOCOLS: Final = (
    Protocol("m4_hourly", ("m4_hourly_train.csv.gz", "m4_hourly_test.csv.gz"), 48),
    Protocol("etth1", ("etth1.csv.gz",), 24, test=(421_536, 424_992)),  # 2018-02-02 to 2018-06-26
)


@dataclass(frozen=True, slots=True)
class _Training:
    """A command of training on a data set.

    Attributes:
        name: Name in the result.
        protocol: Protocol of the data set.
        recipe: Differences from the defaults of `rillcast train`.
    """

    name: str
    protocol: Protocol
    recipe: dict[str, Any]


def _trainings() -> list[_Training]:
    return [_Training(p.name, p, RECIPE) for p in PROTOCOLS] + [
        _Training(p.name + _ON_EXPERTS, p, ON_EXPERTS) for p in PROTOCOLS
    ]


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one model on one data set."""

    mase: float
    smape: float
    wql: float
    coverage80: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the result is the last line on standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.public_benchmarks", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--data", help=f"folder with the public series (default: ${DATA_VARIABLE})")
    parser.add_argument("--work", type=Path, default=Path(".accuracy"), help="folder for bundles and results")
    parser.add_argument("--seeds", type=int, default=1, help="training runs per data set; figures are their median")
    parser.add_argument("--only", choices=[t.name for t in _trainings()] + ["universal", "drift"], action="append")
    parser.add_argument("--document", type=Path, help="page whose measured parts are replaced, those with results")
    parser.add_argument("--finished", action="store_true", help="use finished training runs only; start none")
    args = parser.parse_args(argv)
    keep_freed_memory()
    try:
        result = run(data_folder(args.data), args.work, range(args.seeds), args.only, finished=args.finished)
    except RillcastError as error:
        print(f"public_benchmarks: error: {error}", file=sys.stderr)
        return error.exit_code
    if args.document:
        on_experts = {name: found for name, found in result.items() if name.endswith(_ON_EXPERTS)}
        if len(result) > len(on_experts):
            write_into(args.document, measured_part(result), _BEGIN, _END)
        if on_experts:
            write_into(args.document, _trained_table(on_experts), _EXPERTS_BEGIN, _EXPERTS_END)
    print(json.dumps(summary(result)))
    return 0


def run(
    folder: Path, work: Path, seeds: Iterable[int], only: Sequence[str] | None = None, *, finished: bool = False
) -> dict[str, Any]:
    """Train and score everything that is asked for; return all single figures.

    Args:
        folder: Folder with the public series.
        work: Folder for bundles and finished results.
        seeds: Seeds, one training run each.
        only: Names of protocols, the same with `_on_experts` behind them, `universal`, `drift`; None = all.
        finished: Leave out the seeds whose run is not finished, and a protocol without any.
    """
    work.mkdir(parents=True, exist_ok=True)
    asked = only or [*(t.name for t in _trainings()), "universal", "drift"]
    result: dict[str, Any] = {}
    for training in _trainings():
        wanted = seeds if training.name in asked else ()
        wanted = [seed for seed in wanted if not finished or _result_file(training, work, seed).exists()]
        if wanted:
            result[training.name] = [_trained(training, folder, work, seed) for seed in wanted]
    if "universal" in asked:
        result["universal"] = _universal(folder, work)
    if "drift" in asked:
        result["drift_coverage80"] = _kept(work / "drift.json", lambda: asdict(drift.measure(work)))
    return result


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Return the figures to judge by: medians over the seeds, and beside them each seed's if there are several."""
    figures: dict[str, Any] = {}
    for training in _trainings():
        if training.name in result:
            runs = {name: [run["figures"][name] for run in result[training.name]] for name in _FIGURES}
            figures[training.name] = {name: median(values) for name, values in runs.items()}
            if len(result[training.name]) > 1:
                figures[training.name]["by_seed"] = runs
    if "universal" in result:
        figures["universal"] = {name: one["figures"] for name, one in result["universal"].items()}
    if "drift_coverage80" in result:
        figures["drift_coverage80"] = {name: result["drift_coverage80"][name] for name in ("on", "off")}
    return figures


def score(bundle: Bundle, train_part: list[Series], test: list[Series], horizon: int) -> dict[str, Any]:
    """Return a bundle's figures, calibrated and not, and the seasonal-naive forecast's."""
    parts = {}
    for name, calibrate in (("figures", True), ("uncalibrated", False)):
        engine = StepEngine(bundle, Device("cpu"), batching=Batching(512), calibrate=calibrate)
        found = backtest(engine, test, train=train_part, stride=horizon, steps=horizon)
        parts[name] = _figures(found.model)
    return parts | {"seasonal_naive": _figures(found.seasonal_naive), "origins": len(found.unique_ids)}


def _figures(accuracy: Any) -> dict[str, float]:
    return asdict(Figures(accuracy.mase, accuracy.smape, accuracy.wql, accuracy.coverage))


def _result_file(training: _Training, work: Path, seed: int) -> Path:
    return work / f"{training.name}.{seed}.json"


def _trained(training: _Training, folder: Path, work: Path, seed: int) -> dict[str, Any]:
    protocol, recipe = training.protocol, training.recipe
    result_file = _result_file(training, work, seed)
    out = result_file.with_suffix(".onnx")
    train_part, test = protocol.split(folder)

    def measure() -> dict[str, Any]:
        data = folder / protocol.files[0]
        if protocol.test is not None:
            data = work / f"{protocol.name}.train.csv"
            drift.write_csv(data, train_part)
        options = TrainOptions(
            data=data, freq=FREQ, horizon=protocol.horizon, out=out, seed=seed, quiet=True,
            checkpoint=out.with_suffix(".ckpt"), **recipe,
        )  # fmt: skip
        _say(f"training {training.name}, seed {seed}: {_command(options, recipe)}")
        report = train(options)
        found = score(Bundle.load(out), train_part, test, protocol.horizon)
        return found | {"seed": seed, "recipe": recipe, "training_seconds": report.training["seconds"]}

    kept = _kept(result_file, measure)
    if kept["recipe"] != json.loads(json.dumps(recipe)):
        raise DataError(f"{result_file}: made with {kept['recipe']}, expected {recipe}; remove it")
    _say(f"{training.name}, seed {seed}: {kept['figures']}")
    return kept


def _universal(folder: Path, work: Path) -> dict[str, Any]:
    """Score the shipped bundle, which was trained on none of the data sets; return nothing if none is shipped."""
    try:
        bundle = Bundle.load(UNIVERSAL)
    except BundleError as error:
        _say(f"universal bundle left out: {error}")
        return {}

    def scored(protocol: Protocol) -> dict[str, Any]:
        return score(bundle, *protocol.split(folder), protocol.horizon)

    identity = bundle.metadata.model_id[:12]
    return {p.name: _kept(work / f"universal.{identity}.{p.name}.json", partial(scored, p)) for p in PROTOCOLS}


def _kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.exists():
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(measure()))
        unfinished.replace(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def measured_part(result: dict[str, Any]) -> str:
    """Return the measured part of the page, in Markdown."""
    lines = ["| data | forecast | MASE | sMAPE | WQL | coverage of 80 % |", "| --- | --- | --- | --- | --- | --- |"]
    for protocol in PROTOCOLS:
        runs = result.get(protocol.name, [])
        rows = ("figures", "uncalibrated", "seasonal_naive") if runs else ()
        lines += [
            f"| {protocol.name} | {_label(row, len(runs))} | {_cells([run[row] for run in runs])} |" for row in rows
        ]
        if found := result.get("universal", {}).get(protocol.name):
            lines.append(f"| {protocol.name} | universal bundle, never trained on it | {_cells([found['figures']])} |")
    if coverage := result.get("drift_coverage80"):
        figures = f"{coverage['on']:.3f} with calibration and {coverage['off']:.3f} without"
        interval = f"the {coverage['nominal']:.0%} interval after the change"
        lines += ["", f"Drift (`training/rillcast_training/research/drift.py`): coverage of {interval} is {figures}."]
    return "\n".join(lines)


def _trained_table(result: dict[str, Any]) -> str:
    """Return the figures of networks on top of experts, the median and each seed, in Markdown."""
    lines = [
        "| data | seed | MASE | sMAPE | WQL | coverage of 80 % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in result.items():
        data = name.removesuffix(_ON_EXPERTS)
        rows = [(str(run["seed"]), [run]) for run in runs]
        if len(runs) > 1:
            rows.insert(0, (f"median of {len(runs)} (lowest to highest)", runs))
        lines += [f"| {data} | {seed} | {_cells([run['figures'] for run in some])} |" for seed, some in rows]
    return "\n".join(lines)


def _label(row: str, runs: int) -> str:
    own = {"figures": "model", "uncalibrated": "model, `--calibration off`", "seasonal_naive": "seasonal naive"}[row]
    return own if row == "seasonal_naive" or runs == 1 else f"{own}: median of {runs} seeds (lowest to highest)"


def _cells(runs: list[dict[str, float]]) -> str:
    cells = []
    for name in _FIGURES:
        values = [run[name] for run in runs]
        form = {"smape": ".2f", "wql": ".4f"}.get(name, ".3f")
        spread = f" ({min(values):{form}} to {max(values):{form}})" if max(values) > min(values) else ""
        cells.append(f"{median(values):{form}}{spread}")
    return " | ".join(cells)


def write_into(page: Path, text: str, begin: str, end: str) -> None:
    """Replace the text between two markers of a page.

    Raises:
        DataError: the page has no markers.
    """
    old = page.read_text(encoding="utf-8")
    if begin not in old or end not in old:
        raise DataError(f"{page}: expected the lines {begin!r} and {end!r} around the measured part")
    before, rest = old.split(begin, 1)
    _, after = rest.split(end, 1)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def data_folder(given: str | None) -> Path:
    """Return the folder with the public series: the given one, or that of the environment.

    Raises:
        DataError: neither names one, or it is no folder.
    """
    named = given if given is not None else os.environ.get(DATA_VARIABLE, "")
    needed = ", ".join(file for protocol in PROTOCOLS for file in protocol.files)
    folder = Path(named)
    if not str(named):
        raise DataError(f"no data: set {DATA_VARIABLE} (or --data) to a folder with {needed}")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with {needed}")
    return folder


def _command(options: TrainOptions, recipe: dict[str, Any]) -> str:
    flags = " ".join(
        f"--{'no-' if value is False else ''}{name.replace('_', '-')}" + ("" if value in (True, False) else f" {value}")
        for name, value in recipe.items()
    )
    return (
        f"rillcast train {options.source} --freq {options.freq} --horizon {options.horizon} {flags} "
        f"--seed {options.seed} --out {options.out}"
    )


def _cut(series: list[Series], first: int, end: int) -> list[Series]:
    """Return the events in the periods `[first, end)`."""
    kept = [(one, (one.periods >= first) & (one.periods < end)) for one in series]
    return [Series(one.unique_id, one.periods[rows], one.y[rows]) for one, rows in kept]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
