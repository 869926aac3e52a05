from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rillcast.cli import main
from rillcast.errors import SettingsError
from rillcast_training.export.restore import restore
from rillcast_training.fit.training import train
from tests.support.kafka_broker import free_ports
from tests.support.training import quick_options, trainer_of

pytestmark = pytest.mark.usefixtures("brief_parity")

_EPOCHS = 2


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    rows = [
        f"{name},{1_704_067_200_000 + hour * 3_600_000},{level + np.sin(hour * np.pi / 4) + 0.2 * rng.normal()},"
        f"{rng.normal()}"
        for name, level in (("a", 0.0), ("b", 5.0), ("c", -3.0))
        for hour in range(160)
    ]
    path = tmp_path / "waves.csv"
    path.write_text("\n".join(["unique_id,ds,y,room", *rows]) + "\n")
    return path


def launched(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Iterator[str]:
    """Run a command in two processes, with the variables that `torchrun` sets; yield what each printed, by its rank.

    The first process is this one: to import PyTorch takes longer than the test.
    """
    (port,) = free_ports(1)
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    other = subprocess.Popen(
        [sys.executable, "-m", "rillcast", *arguments], stdout=subprocess.PIPE, text=True,
        env=os.environ | group | {"RANK": "1", "LOCAL_RANK": "1"},
    )  # fmt: skip
    try:
        with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
            for name, value in (group | {"RANK": "0", "LOCAL_RANK": "0"}).items():
                patch.setenv(name, value)
            assert main(list(arguments)) == 0
        printed, _ = other.communicate(timeout=100)
        assert other.returncode == 0
    finally:
        other.kill()
    yield from (output.getvalue(), printed)


def test_two_processes_train_what_one_trains_on_the_same_batches(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "several").mkdir()
    options = quick_options(
        data,
        folder,
        dropout=0.0,
        epochs=_EPOCHS,
        origins=32,
        covariates=(("room", "past"),),
        checkpoint=folder / "ckpt",
    )
    progress = trainer_of(replace(options, checkpoint=None)).run()
    flags = f"--freq 1h --horizon 6 --hidden 8 --season 8 --quantiles 0.1,0.5,0.9 --epochs {_EPOCHS} --batches 6"
    flags += f" --batch 8 --window 48 --dropout 0 --covariate room:past --json --quiet --out {options.out}"
    flags += f" --checkpoint {options.checkpoint}"
    first, second = launched(monkeypatch, "train", str(data), *flags.split())
    assert second == ""
    report = json.loads(first)
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "model.onnx.training.png", "ckpt"}

    assert report["training"]["validation_loss"] == pytest.approx(progress.best_loss, rel=1e-5)
    assert report["figures"] == pytest.approx(progress.best_figures, rel=1e-4)
    together = restore(folder / "model.onnx").state_dict()
    for name, weights in progress.best_weights.items():
        np.testing.assert_allclose(together[name].numpy(), weights.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)

    resumed = trainer_of(options).run()  # one process goes on from the checkpoint of two
    assert resumed.epoch == _EPOCHS
    assert resumed.best_loss == report["training"]["validation_loss"]


def test_a_group_that_torchrun_did_not_start_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SettingsError, match=r"LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not; start .* with torchrun"):
        train(quick_options(data, tmp_path))


def test_several_processes_do_not_each_read_a_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    flags = f"--from-topic --freq 1h --horizon 6 --out {tmp_path / 'model.onnx'}"
    assert main(["train", *flags.split()]) == SettingsError.exit_code
    assert "one process writes the table of a topic" in capsys.readouterr().err
