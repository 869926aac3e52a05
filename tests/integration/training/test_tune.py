"""A search with a budget of seconds: it ends, continues, and recommends a trial of the front."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from rillcast import cli
from rillcast.errors import DataError, OutputError, SettingsError
from rillcast_training.data.traces import Trace
from rillcast_training.fit.on_experts import traces_of
from rillcast_training.fit.options import TrainOptions, TuneOptions
from rillcast_training.fit.study import open_study, picture_of
from rillcast_training.fit.tune import contexts, tune
from tests.support.ci import cannot_run
from tests.support.postgres import USER, running_postgres

pytestmark = pytest.mark.usefixtures("brief_parity")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("data") / "waves.csv"
    hours = range(200)
    rows = [
        f"{name},{1_704_067_200_000 + hour * 3_600_000},{level + np.sin(hour * np.pi / 3) + 0.2 * rng.normal()}"
        for name, level in (("low", 0.0), ("high", 50.0))
        for hour in hours
    ]
    path.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    return path


def options_for(data: Path, out: Path, *, study: str | None = None, trials: int = 2, **changes: Any) -> TuneOptions:
    base = TrainOptions(
        data=data, freq="1h", horizon=4, out=out, seasons=(6,), context=14, quantiles=(0.1, 0.5, 0.9), epochs=1,
        batches=2, batch=4, window=32, origins=4, quiet=True,
    )  # fmt: skip
    space = {"cells": ("gru", "elman"), "hidden": (2, 4), "layers": (1,)} | changes
    return TuneOptions(base=base, study=study or out, budget_s=3600, trials=trials, **space)


def test_a_search_continues_and_recommends_from_the_front(data: Path, tmp_path: Path) -> None:
    study = tmp_path / "waves.study"
    seen: list[int] = []
    first = tune(options_for(data, study), progress=lambda trial: seen.append(trial.number))
    assert seen == [0, 1]
    second = tune(options_for(data, study, trials=1))
    assert second.ran == 1
    assert [trial.number for trial in second.trials] == [0, 1, 2]
    assert second.trials[:2] == first.trials
    assert second.recommended in second.front
    assert second.trials[second.accurate].loss == min(trial.loss for trial in second.trials)
    for trial in second.trials:
        assert trial.microseconds > 0
        assert trial.options["context"] in contexts(options_for(data, study))
        assert set(second.by_hidden()) <= {2, 4}


def test_networks_on_experts_have_a_space_of_their_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    traced: list[int] = []

    def counted(*arguments: Any, **options: Any) -> list[Trace]:
        traced.append(1)
        return traces_of(*arguments, **options)

    monkeypatch.setattr("rillcast_training.fit.tune.traces_of", counted)
    study = tmp_path / "experts.study"
    flags = f"tune {data} --freq 1h --horizon 4 --hidden 2,4 --budget 60s --trials 2 --study {study} --json"
    each = "--epochs 1 --batches 2 --batch 4"
    assert cli.main([*flags.split(), *each.split()]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(traced) == 1
    for trial in found["trials"]:
        options = trial["options"]
        assert set(options) == {"cell", "hidden", "layers", "dropout", "lr", "seasons"}
        assert (options["cell"], options["layers"], options["seasons"]) == ("gru", 1, [24, 168])
        assert trial["state_bytes"] > 4_000  # that of experts
        assert trial["loss"] > 0
    assert found["command"].startswith(f"rillcast train {data} --freq 1h --horizon 4 --cell gru --hidden ")
    args = cli.parser().parse_args(found["command"].split()[1:])
    assert (args.experts, args.dropout in {0.0, 0.1, 0.2}) == (True, True)
    with pytest.raises(SettingsError, match="belongs to another search"):
        tune(options_for(data, study))


def test_no_trial_begins_after_the_budget(data: Path, tmp_path: Path) -> None:
    options = options_for(data, tmp_path / "waves.study")
    short = TuneOptions(base=options.base, study=options.study, budget_s=1e-3, cells=("gru",), hidden=(2,), layers=(1,))
    assert tune(short).ran == 1, "the trial that is running is finished"


def test_a_study_of_another_search_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    study = tmp_path / "waves.study"
    tune(options_for(data, study, trials=1))
    with pytest.raises(SettingsError, match=r"belongs to another search: hidden is \[2, 4\], expected \[2, 8\]"):
        tune(options_for(data, study, hidden=(2, 8)))


def test_data_that_are_too_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.csv"
    path.write_text("unique_id,ds,y\na,0,1\na,3600000,2\n")
    with pytest.raises(DataError, match="not long enough"):
        tune(options_for(path, tmp_path / "short.study"))


@pytest.mark.parametrize("flags", ["--budget 5", "--budget 5s --hidden x", "--budget 0s"])
def test_a_search_that_makes_no_sense_is_refused(
    flags: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"tune {data} --freq 1h --horizon 4 --study {tmp_path / 's'} {flags}".split()
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    assert re.search("budget|hidden", capsys.readouterr().err)


def test_the_command_prints_one_json_object_whose_command_trains(data: Path, tmp_path: Path) -> None:
    study = tmp_path / "waves.study"
    flags = f"--freq 1h --horizon 4 --budget 60s --trials 2 --cells gru --hidden 2,4 --layers 1 --study {study}"
    each = "--no-experts --epochs 1 --batches 2 --batch 4 --json"
    done = subprocess.run(
        [sys.executable, "-m", "rillcast", "tune", str(data), *flags.split(), *each.split()],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert found["command"].startswith(f"rillcast train {data} --freq 1h --horizon 4 --cell gru --hidden ")
    cli.parser().parse_args(found["command"].split()[1:])


def test_two_processes_share_a_study_in_a_database(data: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("psycopg") is None:
        cannot_run("psycopg is not installed (the extra tune)")
    with running_postgres() as server:
        study = f"postgresql://{USER}:secret@127.0.0.1:{server.port}/postgres#waves"
        options = options_for(data, tmp_path / "m.onnx", study=study, trials=1)
        own: list[int] = []
        first = tune(options, progress=lambda trial: own.append(trial.number))
        running = optuna.load_study(study_name="waves", storage=study.partition("#")[0]).ask().number  # elsewhere
        (tmp_path / "options").write_bytes(pickle.dumps(options))
        code = (
            "import pickle, sys, rillcast_training.fit.tune as fit; "
            "found = fit.tune(pickle.load(open(sys.argv[1], 'rb'))); print(found.ran, len(found.trials))"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "options")]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert other.stdout.split() == ["1", "2"], other.stderr
        assert (first.ran, own) == (1, [0])
        trials = optuna.load_study(study_name="waves", storage=study.partition("#")[0]).get_trials()
        assert trials[running].state == TrialState.RUNNING, "it is not taken for one that was left"
        with pytest.raises(SettingsError, match=r":\*\*\*@.*belongs to another search: hidden is \[2, 4\]"):
            tune(options_for(data, tmp_path / "m.onnx", study=study, hidden=(2, 8)))
    with pytest.raises(OutputError, match=r"127\.0\.0\.1.*continue with the same command") as caught:
        tune(options)
    assert "secret" not in str(caught.value)
    assert picture_of(study) == Path("waves.study.png")


@pytest.mark.parametrize("place", ["nosuch://host/db", "postgresql+nosuch://me:secret@host/db#x"])
def test_a_database_of_an_unknown_kind_is_refused_without_its_password(place: str) -> None:
    with pytest.raises(SettingsError, match="the database cannot be opened") as caught:
        open_study(place, {}, seed=0)
    assert "secret" not in str(caught.value)
