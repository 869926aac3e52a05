"""Device and precision of training, as far as they are testable without a GPU."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.errors import DeviceError
from rillcast_training.data.windows import validation_batches
from rillcast_training.fit import compute
from rillcast_training.fit.checkpoint import Progress
from rillcast_training.fit.compute import Compute, choose
from rillcast_training.fit.losses import ValidationFigures
from rillcast_training.fit.trainer import Trainer
from rillcast_training.model.cells import CELLS, make_cell
from rillcast_training.model.precision import mixed
from tests.support.forecasters import random_forecaster
from tests.support.training import quick_options, trainer_of

pytestmark = pytest.mark.usefixtures("brief_parity")

CPU = torch.device("cpu")
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


options_for = partial(quick_options, horizon=4, batches=10, lr=1e-2, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy waves, one of them far above its changes, with a covariate that is known ahead and a category."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("data") / "waves.csv"
    rows = ["unique_id,ds,y,promo,shop"]
    for name, level, unit in (("low", 0.0, 1.0), ("high", 1e5, 5.0)):
        for hour in range(300):
            promo = hour % 5 == 0
            y = level + unit * (np.sin(hour * np.pi / 4) + promo + 0.2 * rng.normal())
            rows.append(f"{name},{1_704_067_200_000 + hour * 3_600_000},{y},{promo:d},{name}")
    path.write_text("\n".join(rows) + "\n")
    return path


class Elsewhere(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch has no annotation here
    """Collects every tensor that an operator makes on another device, but for single numbers of the optimiser."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nor here
        self.device, self.found, self.seen = device, set[str](), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self.seen += 1
                if one.device != self.device and one.dim():
                    self.found.add(f"{func} {tuple(one.shape)} on {one.device}")
        return made


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_of_training_makes_its_tensors_on_the_device_and_reads_none_of_them(
    cell: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is PyTorch's `meta`, a device other than the CPU that raises when a value is read."""
    meta, pinned = torch.device("meta"), list[Tensor]()

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr("rillcast_training.fit.trainer.choose", lambda *_asked: Compute(meta, "float32"))
    covariates = (("promo", "known"), ("shop", "category"))
    trainer = trainer_of(options_for(data, tmp_path, cell=cell, layers=2, window=16, covariates=covariates))
    before = [parameter.device for parameter in (*trainer.forecaster.parameters(), *trainer.forecaster.buffers())]
    assert set(before) == {meta}
    for batch in trainer.sampler.epoch(0, 0, 2):
        there = trainer.compute.put(batch)
        with Elsewhere(meta) as elsewhere:
            loss = trainer._step(there, tqdm(disable=True))
        assert (elsewhere.found, loss.device) == (set(), meta)
        assert elsewhere.seen > 500
    assert {parameter.grad.device for parameter in trainer.forecaster.parameters() if parameter.grad is not None} == {
        meta
    }
    assert len(pinned) == 2 * (8 + 4)
    assert {tensor.device for tensor in pinned} == {CPU}


def test_validation_makes_its_tensors_on_the_device(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = torch.device("meta")
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr("rillcast_training.fit.trainer.choose", lambda *_asked: Compute(meta, "float32"))
    trainer = trainer_of(options_for(data, tmp_path))
    batches = validation_batches(trainer.series, trainer.config, window=48, origins=6, batch=8)
    batch = trainer.compute.put(next(iter(batches)))
    with Elsewhere(meta) as elsewhere, torch.no_grad():
        forecast = trainer.averaged.module(batch.sequences, batch.origins)
        with pytest.raises(RuntimeError, match="meta"):  # where the sums, all made by then, are read
            ValidationFigures(trainer.config.quantiles).add(forecast, batch.target, batch.scale)
    assert elsewhere.found == set()


def test_training_in_mixed_precision_learns_and_its_bundle_equals_its_module(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    small = (
        "--freq 1h --horizon 4 --season 8 --hidden 8 --epochs 8 --batches 10 --batch 8 --window 48 --lr 0.01 --quiet"
    )
    flags = ["--no-experts", "--out", str(out), "--device", "cpu", "--precision", "bfloat16"]
    assert cli.main(["train", str(data), *small.split(), *flags]) == 0  # and not that of a ParityError
    assert " s, cpu, bfloat16\n" in capsys.readouterr().out
    metadata = Bundle.load(out).metadata
    assert (metadata.training["device"], metadata.training["precision"]) == ("cpu", "bfloat16")
    assert metadata.backtest["mase"] < 0.9 * metadata.backtest["seasonal_naive_mase"]


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_learns_the_same_in_mixed_precision(cell: str, data: Path, tmp_path: Path) -> None:
    whole, less = (
        trainer_of(options_for(data, tmp_path, cell=cell, layers=2, precision=precision)).run()
        for precision in ("float32", "bfloat16")
    )
    assert less.curve != whole.curve
    assert less.curve[-1].validation < less.curve[0].validation
    assert less.best_loss == pytest.approx(whole.best_loss, rel=0.02)
    assert {tensor.dtype for tensor in less.best_weights.values()} == {torch.float32}


def test_figures_of_observations_are_the_same_in_either_precision(data: Path, tmp_path: Path) -> None:
    """Also at a level of 20,000 times the daily change, of which bfloat16 would leave nothing."""
    trainer = trainer_of(options_for(data, tmp_path))
    forecaster = random_forecaster(trainer.config)
    batch = next(trainer.sampler.epoch(0, 0, 1))
    whole, less = (forecaster(batch.sequences, batch.origins, kind) for kind in (torch.float32, torch.bfloat16))
    assert torch.equal(less.base, whole.base)
    assert torch.equal(less.scale, whole.scale)
    assert {part.dtype for part in (less.middle, less.distances)} == {torch.float32}
    assert not torch.equal(less.middle, whole.middle)
    torch.testing.assert_close(less.middle, whole.middle, rtol=0.05, atol=0.05)
    torch.testing.assert_close(less.distances, whole.distances, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("cell", ["mingru", "slstm", "lru"])
def test_a_recurrence_keeps_its_digits_over_a_long_sequence(cell: str) -> None:
    torch.manual_seed(0)
    module = make_cell(cell, 5, 16, 1)
    inputs = torch.randn(4, 1_000, 5)
    whole = module.sequence(inputs)
    with mixed(CPU, torch.bfloat16):
        less = module.sequence(inputs)
    error = (less - whole).abs().amax((0, 2)) / whole.abs().amax()
    assert 0 < error[:100].max() < 0.02
    assert error[-100:].max() < 0.02


def test_the_same_seed_gives_the_same_weights_in_mixed_precision(data: Path, tmp_path: Path) -> None:
    first, again = (trainer_of(options_for(data, tmp_path, epochs=2, precision="bfloat16")).run() for _ in range(2))
    assert all(torch.equal(weight, again.best_weights[name]) for name, weight in first.best_weights.items())


def test_a_checkpoint_from_a_gpu_is_resumed_on_the_cpu(data: Path, tmp_path: Path) -> None:
    """The file is one of the CPU whose tensors are marked as of `cuda:0`, the only difference between them."""
    checkpoint = tmp_path / "run.ckpt"
    options = options_for(data, tmp_path, checkpoint=checkpoint)
    whole = trainer_of(replace(options, checkpoint=None)).run()

    class Stopped(Trainer):
        def _epoch(self, progress: Progress, bar: Any) -> None:
            if progress.epoch == 2:
                raise KeyboardInterrupt
            super()._epoch(progress, bar)

    trainer = trainer_of(options)
    with pytest.raises(KeyboardInterrupt):
        Stopped(options, trainer.config, trainer.series).run()
    with zipfile.ZipFile(checkpoint) as there:
        files = {name: there.read(name) for name in there.namelist()}
    (pickled,) = (name for name in files if name.endswith("data.pkl"))
    assert files[pickled].count(b"X\x03\x00\x00\x00cpu") == 1
    files[pickled] = files[pickled].replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    with zipfile.ZipFile(checkpoint, "w") as marked:
        for name, content in files.items():
            marked.writestr(name, content)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA device"):
            torch.load(checkpoint, weights_only=True)
    resumed = trainer_of(replace(options, device="auto" if not torch.cuda.is_available() else "cpu")).run()
    assert resumed.curve == whole.curve


def test_a_checkpoint_may_be_resumed_in_another_precision(data: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.ckpt"
    options = options_for(data, tmp_path, checkpoint=checkpoint, epochs=2, patience=1)
    trainer_of(options).run()
    again = trainer_of(replace(options, precision="bfloat16")).run()
    assert again.epoch == 2


@without_gpu
def test_cuda_asked_for_and_absent_is_refused_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceError, match=r"--device cuda, but .*; install PyTorch for CUDA .* --device cpu or auto"):
        choose("cuda", "auto")
    flags = ["--freq", "1h", "--horizon", "4", "--device", "cuda"]
    for command in (
        ["train", "nowhere.csv", "--out", "m.onnx"],
        ["tune", "nowhere.csv", "--study", "s", "--budget", "1s"],
    ):
        assert cli.main([*command, *flags]) == DeviceError.exit_code
        assert "--device cuda, but" in capsys.readouterr().err


@without_gpu
def test_auto_is_the_cpu_in_float32_where_there_is_no_gpu() -> None:
    assert choose("auto", "auto") == choose("cpu", "auto") == Compute(CPU, "float32")
    assert choose("auto", "bfloat16") == Compute(CPU, "bfloat16")


@with_gpu
def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert choose("auto", "auto").device.type == choose("cuda", "float32").device.type == "cuda"


@pytest.mark.parametrize(
    ("newer", "refused", "precision", "expected"),
    [
        (True, (), "auto", "bfloat16"),
        (True, (), "float32", "float32"),
        (True, (torch.bfloat16,), "auto", "float32"),  # as cuDNN before 9.13
        (True, (torch.bfloat16,), "bfloat16", "--precision bfloat16, but a step of training on it fails: no kernel;"),
        (False, (), "auto", "float32"),
        (False, (), "bfloat16", "--precision bfloat16, but Tesla T4 has none"),
        (True, (torch.float32,), "auto", "--device cuda, but a step of training on it fails: no kernel; install"),
    ],
)
def test_a_gpu_takes_a_trial_step_before_it_is_chosen(
    newer: bool, refused: tuple[torch.dtype, ...], precision: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(device: torch.device, products: torch.dtype) -> str | None:
        assert device.type == "cuda"
        return "a step of training on it fails: no kernel" if products in refused else None

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: newer or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")
    monkeypatch.setattr(compute, "_refusal", refusal)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    if expected.startswith("--"):
        with pytest.raises(DeviceError) as caught:
            choose("cuda", precision)
        assert str(caught.value).startswith(expected)
        return
    assert choose("cuda", precision) == Compute(torch.device("cuda"), expected)  # type: ignore[arg-type]  # one of them


def test_the_question_is_a_step_and_the_answer_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compute._refusal(CPU, torch.float32) is None
    assert compute._refusal(CPU, torch.bfloat16) is None

    def fails(*_: Any) -> Any:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED\nThis error may appear if ...")

    monkeypatch.setattr(torch.nn.GRU, "forward", fails)
    refusal = compute._refusal(CPU, torch.bfloat16)
    assert refusal == "a step of training on it fails: cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"


def test_a_gpu_is_asked_for_repeatable_kernels_and_the_process_gets_its_own_back() -> None:
    def state() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, not cudnn.allow_tf32

    before = state()
    assert before == (False, False, False)
    with Compute(torch.device("cuda"), "float32").repeatable():
        assert state() == (True, True, True)
    assert state() == before
    with Compute(CPU, "float32").repeatable():
        assert state() == before
