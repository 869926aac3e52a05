"""A registry of models in an S3 with conditional writes (versitygw), by the commands that an operator uses."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fsspec.config
import pytest

from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.errors import RegistryError
from tests.s3.build import PROGRAMS
from tests.support.kafka_broker import free_ports
from tests.support.long_tests import runs_with
from tests.support.service_process import ServiceProcess
from tests.support.toy import ToyGraph, unroll, write_toy

_BUCKET, _START_TIMEOUT_S = "models", 30.0
_KEY, _SECRET = "key", "secret"
_PATIENCE_S = 600.0  # on a busy machine
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@dataclass
class Store:
    """A running object store, and the commands against it."""

    folder: Path
    own: dict[str, str]
    registry: str = f"s3://{_BUCKET}/rillcast"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | self.own

    def model(self, action: str, *arguments: str, registry: str = "") -> tuple[int, str, str]:
        """Run a command; return its exit code and what it said."""
        command = [sys.executable, "-m", "rillcast", "model", action, registry or self.registry, *arguments, "--json"]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, cwd=self.folder, check=False,
            timeout=_PATIENCE_S,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def push(self, multiplier: int, *more: str) -> str:
        """Push a toy model and return its id."""
        code, out, err = self.model("push", str(write_toy(self.folder / f"{multiplier}.onnx", multiplier)), *more)
        assert code == 0, err
        return str(json.loads(out)["model_id"])

    def live(self) -> tuple[str, int]:
        """Return the live model and the number of moves of the alias."""
        live = json.loads(self.model("list")[1])["aliases"]["live"]
        return live["model_id"], len(live["history"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    runs_with("test-s3")
    if missing := PROGRAMS.missing():
        pytest.fail(f"{', '.join(missing)} is not built; `make test-s3` builds it before, with Go")
    if importlib.util.find_spec("s3fs") is None:
        pytest.fail("s3fs is not installed; `make test-s3` installs it before")
    (port,) = free_ports(1)
    data, sidecar = tmp_path / "data", tmp_path / "sidecar"
    (data / _BUCKET).mkdir(parents=True)
    sidecar.mkdir()
    command = [str(PROGRAMS.folder() / "versitygw"), "--port", f"127.0.0.1:{port}", "--access", _KEY]
    command += ["--secret", _SECRET, "--quiet", "posix", "--sidecar", str(sidecar), str(data)]
    with (tmp_path / "versitygw.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not answers(port):
            assert process.poll() is None, (tmp_path / "versitygw.log").read_text()
            assert time.monotonic() < deadline, "the object store does not answer"
            time.sleep(0.1)
        own = {"AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _SECRET, "FSSPEC_S3_ENDPOINT_URL": address}
        yield Store(tmp_path, own)
    finally:
        process.terminate()
        process.wait(30)


def toy_model(multiplier: int) -> bytes:
    return ToyGraph(multiplier=multiplier).build()


def answers(port: int) -> bool:
    """Return whether an HTTP server answers at a port, with whatever status."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def test_models_are_pushed_promoted_and_rolled_back(store: Store) -> None:
    first, second = store.push(31, "--promote"), store.push(37)
    assert store.live() == (first, 1)
    assert store.model("promote", second)[0] == 0
    assert store.live() == (second, 2)
    code, out, _ = store.model("push", str(store.folder / "31.onnx"), "--promote", "--if-unset")
    assert code == 0
    assert not json.loads(out)["promoted"], "an alias that names a model is left alone"
    assert store.model("rollback")[0] == 0
    assert store.live() == (first, 3)
    pulled = store.folder / "pulled.onnx"
    assert store.model("pull", "live", "--out", str(pulled))[0] == 0
    assert pulled.read_bytes() == (store.folder / "31.onnx").read_bytes()


def test_a_misspelt_bucket_is_refused_and_not_made(store: Store) -> None:
    code, _, err = store.model("push", str(write_toy(store.folder / "m.onnx")), registry="s3://modles/rillcast")
    assert code == 3
    assert "there is no modles" in err
    assert [each.name for each in (store.folder / "data").iterdir() if each.is_dir()] == [_BUCKET]


def test_of_six_promotions_at_once_one_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By threads that begin together: processes would begin one after the other."""
    own = {"endpoint_url": store.own["FSSPEC_S3_ENDPOINT_URL"], "key": _KEY, "secret": _SECRET}
    monkeypatch.setitem(fsspec.config.conf, "s3", own)  # the variables are read when fsspec is imported
    registry = ModelRegistry.at(store.registry)
    first, *others = (registry.push(toy_model(each), NOON)[0].model_id for each in (31, 37, 41, 43, 47, 53, 59))
    registry.promote(first, NOON)
    together = threading.Barrier(len(others))

    def promote(model_id: str) -> str:
        together.wait()
        try:
            registry.promote(model_id, NOON)
        except RegistryError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(others)) as pool:
        said = list(pool.map(promote, others))
    won = [model_id for model_id, error in zip(others, said, strict=True) if not error]
    history = registry.history("live")
    # One that began when another had ended is a move of its own; of those that met, one took each number.
    assert [each.model_id for each in history[1:]] == sorted(won, key=[each.model_id for each in history].index)
    assert history[-1].model_id in won
    lost = [error for error in said if error]
    assert lost, "no two of them met"
    assert all("another writer moved live at the same time; nothing was changed" in error for error in lost)


def test_a_service_runs_from_the_registry(store: Store) -> None:
    store.push(31, "--promote")
    lines = b"".join(b'{"unique_id": "a", "ds": %d, "y": %d}\n' % (3_600_000 * n, n + 5) for n in range(3))
    (store.folder / "in.jsonl").write_bytes(lines)
    settings = {
        "model": f"{store.registry}@live",
        "model_cache": store.folder / "cache",
        "input.path": store.folder / "in.jsonl",
        "output.path": store.folder / "out.jsonl",
        "dead_letters.path": store.folder / "dead.jsonl",
    }
    process = ServiceProcess(settings, store.folder, environment=store.environment)
    assert process.wait() == 0, process.log
    found = [json.loads(line) for line in (store.folder / "out.jsonl").read_bytes().splitlines()]
    assert [each["quantiles"]["0.5"][0] for each in found] == unroll([5, 6, 7])
