from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from rillcast.bundle.bundle import Bundle
from rillcast.cli.commands import train as command
from rillcast.errors import DataError, OutputError, SettingsError
from rillcast_training.data import tables
from rillcast_training.data.columns import Aggregate, Columns
from rillcast_training.data.series import Series, load, observations
from rillcast_training.data.split import split
from rillcast_training.data.windows import WindowSampler, validation_batches
from rillcast_training.export.restore import restore
from rillcast_training.fit.checkpoint import Progress
from rillcast_training.fit.shape import forecaster_shape
from rillcast_training.fit.trainer import Trainer
from rillcast_training.fit.training import train
from rillcast_training.model.forecaster import ForecasterConfig
from tests.support.forecasters import small_config
from tests.support.paths import ROOT
from tests.support.training import quick_options, trainer_of

pytestmark = pytest.mark.usefixtures("brief_parity")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three noisy daily waves whose level and unit differ; one has a gap, one misses values."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("data") / "waves.csv"
    rows = ["unique_id,ds,y"]
    for name, level, unit in (("low", 0.0, 1.0), ("high", 1e5, 50.0), ("small", 0.01, 0.001)):
        for hour in range(300):
            if name == "high" and 100 <= hour < 104:
                continue
            y = level + unit * (np.sin(hour * np.pi / 4) + 0.2 * rng.normal())
            rows.append(
                f"{name},{1_704_067_200_000 + hour * 3_600_000},{'' if name == 'low' and hour % 37 == 5 else y}"
            )
    path.write_text("\n".join(rows) + "\n")
    return path


def same_weights(a: Progress, b: Progress) -> bool:
    return a.best_weights.keys() == b.best_weights.keys() and all(
        torch.equal(tensor, b.best_weights[name]) for name, tensor in a.best_weights.items()
    )


def test_training_beats_the_seasonal_naive_forecast_and_says_so_in_the_bundle(data: Path, tmp_path: Path) -> None:
    report = train(quick_options(data, tmp_path, epochs=8, batches=20, context=48, lr=1e-2))
    metadata = Bundle.load(report.model).metadata
    assert report.figures["mase"] < 0.9 * report.figures["seasonal_naive_mase"]
    assert metadata.backtest == pytest.approx(report.figures)
    assert metadata.model_id == report.model_id
    assert metadata.training["series"] == 3
    assert metadata.training["observations"] == 3 * 300 - 4 - 8
    assert metadata.training["first_ds"] == "2024-01-01T00:00:00.000Z"
    assert {"torch", "onnx", "numpy", "rillcast"} <= metadata.versions.keys()
    assert report.curve is not None
    assert report.curve.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_never_costs_the_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, *_args: object, **_more: object) -> None:
        assert (tmp_path / "model.onnx").exists()
        raise OutputError(f"{path}: No space left on device")

    monkeypatch.setattr("rillcast_training.fit.curve.draw", full)
    report = train(quick_options(data, tmp_path, epochs=1, batches=2))
    assert (report.curve, report.to_dict()["curve"]) == (None, None)
    assert Bundle.load(report.model).metadata.model_id == report.model_id
    assert "model.onnx.training.png: No space left on device" in caplog.text


def test_a_full_disk_is_one_line_and_leaves_the_model_before(data: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("before")
    flags = "--no-experts --freq 1h --horizon 3 --hidden 8 --epochs 1 --batches 2 --season 24 --context 30 --window 24"
    argv = ["train", str(data), *flags.split(), "--out", "m.onnx", "--checkpoint", "c"]
    code = (
        "import resource, sys; from rillcast import cli; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        f"sys.exit(cli.main({argv!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT / "pipeline", ROOT / "training"]))},
    )  # fmt: skip
    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        "epoch 1 has no checkpoint: c: File too large", "rillcast: error: m.onnx: File too large",
    ]  # fmt: skip
    assert (tmp_path / "m.onnx").read_text() == "before"
    assert not (tmp_path / "c").exists()


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(data: Path, tmp_path: Path) -> None:
    first, again, other = (trainer_of(quick_options(data, tmp_path, seed=seed)).run() for seed in (3, 3, 4))
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_a_model_of_aggregated_events_is_that_of_the_aggregates_and_remembers_how(data: Path, tmp_path: Path) -> None:
    hours = load(data, "1h")
    rows = [
        f"{one.unique_id},{int(period) * 3_600_000 + minute * 60_000},{'' if y != y else y + change}"
        for one in hours
        for period, y in zip(one.periods.tolist(), one.y.tolist(), strict=True)
        for minute, change in ((40, 0.0), (10, 7.0))
    ]
    raw = tmp_path / "raw.csv"
    raw.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    columns = Columns(aggregate=Aggregate("last", empty="missing"))
    (tmp_path / "raw").mkdir()
    aggregated = train(replace(quick_options(raw, tmp_path / "raw", epochs=1, batches=3), columns=columns))
    tables.write(tmp_path / "hours.csv", observations(raw, "1h", columns))
    plain = train(quick_options(tmp_path / "hours.csv", tmp_path, epochs=1, batches=3))
    assert aggregated.figures == plain.figures
    assert aggregated.training["observations"] == 3 * 300 - 4 - 8
    remembered = Bundle.load(aggregated.model).metadata.training["aggregate"]
    assert remembered == {"aggregate": "last", "close": "stream", "empty": "missing", "silent_after": 100}
    assert "aggregate" not in Bundle.load(plain.model).metadata.training


def test_an_interrupted_run_resumes_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer_of(quick_options(data, tmp_path)).run()
    options = quick_options(data, tmp_path, checkpoint=tmp_path / "run.ckpt")
    epochs_left = 2
    validate = Trainer.validate

    def interrupted(trainer: Trainer) -> dict[str, float]:
        nonlocal epochs_left
        if epochs_left == 0:
            raise KeyboardInterrupt
        epochs_left -= 1
        return validate(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer_of(options).run()
    resumed = trainer_of(options).run()
    assert resumed.epoch == whole.epoch
    assert resumed.curve == whole.curve
    assert same_weights(resumed, whole)


def test_a_finished_checkpoint_trains_no_further(data: Path, tmp_path: Path) -> None:
    options = quick_options(data, tmp_path, checkpoint=tmp_path / "run.ckpt", epochs=2)
    done = trainer_of(options).run()
    again = trainer_of(options).run()
    assert (again.seconds, again.epoch) == (done.seconds, 2)


def test_a_checkpoint_of_other_options_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.ckpt"
    trainer_of(quick_options(data, tmp_path, checkpoint=checkpoint, epochs=1)).run()
    with pytest.raises(SettingsError, match="hidden is 8, expected 9"):
        trainer_of(quick_options(data, tmp_path, checkpoint=checkpoint, epochs=1, hidden=9)).run()


def test_a_damaged_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.ckpt"
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(SettingsError, match="not readable"):
        trainer_of(quick_options(data, tmp_path, checkpoint=checkpoint)).run()


def test_training_stops_when_patience_is_used_up(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, 0.4, 0.6, 0.6, 0.6, 0.1])
    monkeypatch.setattr(Trainer, "validate", lambda _: {"scaled_loss": next(losses)})
    progress = trainer_of(quick_options(data, tmp_path, epochs=20, batches=1, patience=3)).run()
    assert (progress.epoch, progress.best_epoch, progress.best_loss) == (5, 2, 0.4)


def test_a_refit_trains_on_the_validation_part_too_for_the_best_number_of_epochs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = quick_options(data, tmp_path, refit=True)
    seen: list[tuple[int, int]] = []
    take = Trainer._train

    def counted(self: Trainer, number: int, bar: Any) -> float:
        seen.append((number, self.sampler.events))
        return take(self, number, bar)

    monkeypatch.setattr(Trainer, "_train", counted)
    report = train(options)
    first, again = seen[: report.training["epochs"]], seen[report.training["epochs"] :]
    assert [number for number, _ in again] == list(range(report.training["best_epoch"]))
    assert max(events for _, events in first) < min(events for _, events in again)
    assert report.training["refit"]


@pytest.mark.parametrize(("losses", "refits"), [([0.5, 0.4, 0.6, 0.6], True), ([0.5, 0.4, 0.6, 0.3], False)])
def test_a_refit_if_stopped_follows_only_where_the_patience_ended_the_run(
    losses: list[float], refits: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter(losses)
    validate = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self: validate(self) | {"scaled_loss": next(found)})
    options = quick_options(data, tmp_path, epochs=5 if refits else 4, batches=1, patience=2)
    plain = train(options)
    found = iter(losses)
    report = train(replace(options, refit_if_stopped=True, out=tmp_path / "again.onnx"))
    assert (plain.training["refit"], report.training["refit"]) == (False, refits)
    same = _weights(plain.model) == _weights(report.model)
    assert same is not refits


def _weights(bundle: Path) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in restore(bundle).state_dict().values()]


def test_both_kinds_of_refit_exclude_each_other(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="exclude each other"):
        quick_options(data, tmp_path, refit=True, refit_if_stopped=True)


def test_few_series_are_validated_at_more_origins_each(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(*args: Any, origins: int, **others: Any) -> Any:
        asked.append(origins)
        return validation_batches(*args, origins=origins, **others)

    monkeypatch.setattr("rillcast_training.fit.trainer.validation_batches", counted)
    trainer = trainer_of(quick_options(data, tmp_path))
    few = len(trainer.series)
    trainer.validate()
    trainer.series = list(trainer.series) * 100
    trainer.validate()
    assert asked == [-(-1_200 // few), 24]


def test_an_average_spans_half_of_the_steps_until_it_has_the_span_asked_for(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(quick_options(data, tmp_path, averaging=0.9))
    for steps, oldest in ((4, 0), (100, None)):
        weights = torch.zeros(steps)
        for step in range(steps):
            newest = torch.zeros(steps)
            newest[step] = 1.0
            weights = newest if step == 0 else trainer._average(weights, newest, step)
        assert weights.sum() == pytest.approx(1.0)
        expected = [3 / 15, 3 / 15, 4 / 15, 5 / 15] if oldest is not None else [0.1 * 0.9**age for age in (2, 1, 0)]
        assert weights[-len(expected) :].tolist() == pytest.approx(expected)


def test_larger_series_count_for_more_by_their_scale_to_the_power_of_the_balance() -> None:
    periods = np.arange(200, dtype=np.int64)
    season = np.tile([0.0, 1.0, 3.0, 2.0], 50) + periods * 0.25
    series = [Series(str(n), periods, (size * season).astype(np.float32)) for n, size in enumerate((1.0, 100.0, 1e9))]
    config = small_config()
    assert {part.weight for part in split(series, config, 0.1)} == {1.0}
    small, large, _ = (part.weight for part in split(series, config, 0.1, 0.5))
    assert large / small == pytest.approx(10.0, rel=1e-3)
    huge = [part.weight for part in split(series * 50, config, 0.1, 1.0)]
    assert sum(huge) / len(huge) == pytest.approx(1.0)


def test_nothing_of_the_validation_part_is_shown_in_training(data: Path, tmp_path: Path) -> None:
    config = forecaster_shape(quick_options(data, tmp_path))
    series = load(data, "1h")
    for one, part in zip(series, split(series, config, 0.1), strict=True):
        one.y[one.periods >= part.cut] = np.float32(7e20)
    poisoned = WindowSampler(split(series, config, 0.1), config, window=48, origins=8, batch=64)
    for batch in poisoned.epoch(0, 0, 4):
        assert float(batch.sequences.grid.abs().max()) < 1e20
        assert float(batch.target.nan_to_num().abs().max()) < 1e20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantiles": (0.5, 0.1)}, "must increase"),
        ({"freq": "1 month"}, "1 month"),
        ({"cell": "transformer"}, "transformer"),
        ({"epochs": 0}, "epochs is 0"),
        ({"horizon": 0}, "at least one"),
        ({"seasons": (8, 4)}, "must be longer"),
        ({"out": Path("/nowhere/at/all/model.onnx")}, "does not exist"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        train(quick_options(data, tmp_path, **changes))


def test_series_too_short_to_validate_on_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 of 3 is not long enough"):
        train(quick_options(data, tmp_path, horizon=150))


def test_the_command_says_that_it_trained_again_on_all_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = iter([0.5, 0.6])
    validate = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self: validate(self) | {"scaled_loss": next(losses)})
    parser = argparse.ArgumentParser()
    command.configure(parser)
    arguments = (
        f"{data} --freq 1h --horizon 4 --season 8 --hidden 4 --epochs 3 --batches 2 --batch 4 --window 32 --quiet"
    )
    flags = f"--no-experts --patience 1 --refit-if-stopped --quantiles 0.1,0.9 --out {tmp_path / 'm.onnx'}"
    assert command.run(parser.parse_args([*arguments.split(), *flags.split()])) == 0
    assert "epoch 1 of 2, then 1 on all data\n" in capsys.readouterr().out


def test_validation_uses_no_dropout(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(quick_options(data, tmp_path, dropout=0.5, epochs=1))
    trainer.run()
    assert trainer.validate() == trainer.validate()


def test_the_forecaster_is_exported_without_dropout(data: Path, tmp_path: Path) -> None:
    report = train(quick_options(data, tmp_path, dropout=0.5, epochs=1))
    assert "Dropout" not in {node.op_type for node in onnx.load(report.model).graph.node}


def test_default_shape_follows_the_frequency(data: Path, tmp_path: Path) -> None:
    def shape(freq: str) -> tuple[tuple[int, ...], int]:
        config: ForecasterConfig = forecaster_shape(quick_options(data, tmp_path, freq=freq, seasons=None))
        return config.seasons, config.context

    assert shape("1h") == ((24, 168), 168)
    assert shape("30min") == ((48, 336), 336)
    assert shape("15min") == ((96,), 192)
    assert shape("5min") == ((288,), 576)
    assert shape("1min") == ((60,), 120)
    assert shape("1d") == ((7,), 28)
    assert shape("1w") == ((52,), 104)
    assert shape("1mo") == ((12,), 36)
    assert shape("QS") == ((4,), 28)
    assert shape("5mo") == shape("1y") == ((1,), 28)


def test_a_training_from_the_disk_has_the_weights_of_one_in_memory(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    frame = tables.read(data)
    for number, part in enumerate(frame.iter_slices(200)):
        tables.write(folder / f"part-{number}.parquet", part)
    tables.write(tmp_path / "whole.parquet", frame)
    (scratch := tmp_path / "scratch").mkdir()
    from_disk = train(quick_options(folder, tmp_path, scratch=scratch))
    in_memory = trainer_of(quick_options(tmp_path / "whole.parquet", tmp_path)).run()
    weights = restore(from_disk.model).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in in_memory.best_weights.items())
    assert from_disk.training["data"] == "table"
    assert from_disk.training["observations"] == 3 * 300 - 4 - 8
    assert not any(scratch.iterdir())


def test_covariates_and_aggregation_are_refused_with_scratch(data: Path, tmp_path: Path) -> None:
    for changes in ({"covariates": (("room", "past"),)}, {"columns": Columns(aggregate=Aggregate("count"))}):
        with pytest.raises(SettingsError, match="scratch takes a table of observations as they are"):
            quick_options(data, tmp_path, scratch=tmp_path, **changes)
