"""A training as a run of MLflow, and the bundle's way from there into the registry and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.registry.mlflow_client import MlflowClient
from rillcast.bundle.registry.model_registry import MLFLOW_RUN, ModelRegistry
from rillcast.errors import RegistryUnreachableError, SettingsError
from rillcast_training.data.split import split
from rillcast_training.fit import tracking
from rillcast_training.fit.checkpoint import EpochRecord
from rillcast_training.fit.shape import forecaster_shape
from rillcast_training.fit.training import fitted, series_of, train
from tests.support.mlflow_stand_in import MlflowStandIn, running_stand_in
from tests.support.registries import NOW
from tests.support.training import quick_options

pytestmark = pytest.mark.usefixtures("brief_parity")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "wave.csv"
    noise = np.random.default_rng(1).normal(size=300)
    rows = [f"a,{hour * 3_600_000},{np.sin(hour * np.pi / 4) + 0.2 * noise[hour]}" for hour in range(300)]
    path.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    return path


@pytest.fixture
def stand_in() -> Iterator[tuple[str, MlflowStandIn]]:
    with running_stand_in() as (address, server):
        yield f"mlflow://{address}/load", server


def test_the_command_prints_one_json_object_and_logs_an_mlflow_run_whose_version_is_the_bundle(
    mlflow: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"mlflow://{mlflow}/load"
    command = ["train", str(data), "--freq", "1h", "--horizon", "4", "--out", str(tmp_path / "m.onnx"), "--json"]
    small = "--hidden 4 --season 8 --epochs 2 --batches 2 --batch 4 --window 32 --quantiles 0.1,0.9 --threads 1"
    assert cli.main([*command, *small.split(), "--no-experts", "--track", address]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == str(tmp_path / "m.onnx")
    assert report["figures"]["seasonal_naive_mase"] > 0
    run_id = Bundle.load(report["model"]).metadata.training[MLFLOW_RUN]
    client = MlflowClient(address)
    run = client.get("runs/get", run_id=run_id)["run"]
    assert (run["info"]["status"], run["info"]["run_name"]) == ("FINISHED", "m")
    parameters = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert (parameters["hidden"], parameters["epochs"], parameters["freq"]) == ("4", "2", "1h")
    figures = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    assert figures["mase"] == pytest.approx(report["figures"]["mase"])
    assert {"training_loss", "validation_loss", "parity"} <= figures.keys()
    artefacts = run["info"]["artifact_uri"]
    assert json.loads(client.download(f"{artefacts}/report.json", 10**6)) == report
    assert client.download(f"{artefacts}/m.onnx.training.png", 10**7).startswith(b"\x89PNG")

    registry = ModelRegistry.at(address)
    manifest, _ = registry.push(Path(report["model"]).read_bytes(), NOW)
    found = client.get("model-versions/get", name="load", version="1")["model_version"]
    assert (found["run_id"], manifest.model_id) == (run_id, report["model_id"])
    assert registry.pull(manifest.model_id).data == Path(report["model"]).read_bytes()


def test_the_curve_has_every_epoch_through_an_outage_and_a_resumption(
    stand_in: tuple[str, MlflowStandIn], data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, server = stand_in
    options = quick_options(data, tmp_path, epochs=3, batches=1, checkpoint=tmp_path / "c.ckpt", track=address)
    series, config = series_of(options, forecaster_shape(options))
    parts = split(series, config, options.validation)
    for _ in range(2):  # the second is resumed after the last epoch
        run = tracking.Tracking.begin(address, options)

        def away_at_first(record: EpochRecord, run: tracking.Tracking = run) -> None:
            server.fails = 503 if record.epoch == 1 else 0
            run.epoch(record)

        fitted(options, config, parts, on_epoch=away_at_first)
        logged = [(each["key"], each["step"]) for each in server.runs[run.run_id]["data"]["metrics"]]
        assert logged == [(key, step) for step in (1, 2, 3) for key in ("training_loss", "validation_loss")]
    assert "the database is away; epoch 1 is logged with the next one" in caplog.text


def test_a_run_that_fails_or_is_stopped_says_so(
    stand_in: tuple[str, MlflowStandIn], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, server = stand_in
    for error, status in ((ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED")):

        def fails(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("rillcast_training.fit.training.fitted", fails)
        with pytest.raises(type(error)):
            train(quick_options(data, tmp_path, track=address))
        assert [run["info"]["status"] for run in server.runs.values()][-1] == status


def test_a_server_that_is_away_costs_no_training_before_and_no_bundle_after(
    stand_in: tuple[str, MlflowStandIn], data: Path, tmp_path: Path
) -> None:
    address, server = stand_in
    options = quick_options(data, tmp_path, track=address)
    run = tracking.Tracking.begin(address, options)
    options.out.write_bytes(b"a bundle")
    server.fails = 500
    with pytest.raises(RegistryUnreachableError, match=r"model\.onnx is written, but run") as caught:
        run.finish({"model_id": "0" * 16}, {"mase": 1.0}, options.out, None)
    assert caught.value.exit_code == 5
    options.out.unlink()
    with pytest.raises(RegistryUnreachableError, match="MLflow fails"):
        train(options)
    assert not options.out.exists()


def test_an_address_that_is_not_mlflows_is_refused_before_the_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--track http://x: expected mlflow://HOST:PORT/NAME"):
        train(quick_options(data, tmp_path, track="http://x"))
