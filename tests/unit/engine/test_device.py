from __future__ import annotations

import ctypes
import tomllib
from collections.abc import Callable
from typing import Any

import onnxruntime as ort
import pytest

from rillcast.engine import device
from rillcast.engine.batcher import Batching
from rillcast.errors import DeviceError
from tests.support.paths import ROOT
from tests.support.toy import ToyGraph


def has_cuda() -> bool:
    return device.choose("auto").name == "cuda"


def test_requested_but_absent_cuda_is_an_error() -> None:
    if has_cuda():
        assert device.choose("cuda").name == "cuda"
        return
    with pytest.raises(DeviceError, match="device=cuda, but"):
        device.choose("cuda")


def test_a_session_that_lands_elsewhere_is_an_error() -> None:
    """ONNX Runtime silently uses another provider where a listed one cannot start; the engine reports it."""
    if has_cuda():
        assert "CUDAExecutionProvider" in device.Device("cuda").session(ToyGraph().build()).get_providers()
        return
    with pytest.raises(DeviceError):
        device.Device("cuda").session(ToyGraph().build())


def test_a_requested_cpu_is_used() -> None:
    assert device.choose("cpu", threads=2) == device.Device("cpu", 2)


def test_a_model_that_cannot_be_loaded_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match=ort.__version__.replace(".", r"\.")):
        device.Device("cpu").session(b"rubbish")


def test_cuda_graphs_are_refused_on_another_device() -> None:
    with pytest.raises(DeviceError, match="cuda_graphs=true, but device=cpu"):
        device.choose("cpu", cuda_graphs=True)
    if has_cuda():
        assert device.choose("auto", cuda_graphs=True).cuda_graphs
        return
    with pytest.raises(DeviceError, match="cuda_graphs=true, but device=auto found no CUDA"):
        device.choose("auto", cuda_graphs=True)


def test_the_error_names_the_library_that_the_provider_misses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime names it in its log alone, and its own advice fits another version of CUDA."""
    message = "libcurand.so.10: cannot open shared object file: No such file or directory"
    loaded: list[str] = []

    def load(name: str, *_: Any, **__: Any) -> None:
        loaded.append(name)
        if "providers_cuda" in name:
            raise OSError(message)

    def preload() -> None:
        loaded.append("preloaded")
        print("Failed to load something")

    def session(*_: Any) -> None:
        loaded.append("probe")
        raise DeviceError("ONNX Runtime runs the model on ['CPUExecutionProvider'], expected cuda")

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", preload)
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(device.Device, "session", session)
    with pytest.raises(DeviceError) as raised:
        device.choose("cuda")
    assert message in str(raised.value)
    assert "driver of 580 or later, and CUDA 13" in str(raised.value)
    assert loaded[:3] == ["libcuda.so.1", "preloaded", "probe"]
    assert capsys.readouterr().out == "", "stdout may be the output of a command"


def test_without_a_driver_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *_: Any, **__: Any) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: pytest.fail("the libraries are large"))
    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(DeviceError, match=r"libcuda\.so\.1"):
        device.choose("cuda")
    assert device.choose("auto").name == "cpu"


def test_cuda_graphs_need_an_onnx_runtime_that_replays_them_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_missing", lambda: None)
    monkeypatch.setattr(ort, "__version__", "1.30.0")
    with pytest.raises(DeviceError, match=r"1\.30\.0 replays .* wrong results; install onnxruntime-gpu 1\.31 or later"):
        device.choose("cuda", cuda_graphs=True)
    assert device.choose("cuda").name == "cuda"
    for version in ("1.31.0", "1.100.0", "2.0.0rc1"):
        monkeypatch.setattr(ort, "__version__", version)
        assert device.choose("cuda", cuda_graphs=True).cuda_graphs


def test_graphs_are_captured_by_default_where_they_are_replayed_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.choose("cpu").cuda_graphs is False
    monkeypatch.setattr(device, "cuda_missing", lambda: None)
    monkeypatch.setattr(ort, "__version__", "1.31.0")
    assert device.choose("auto").cuda_graphs == "auto"
    assert device.choose("cuda", cuda_graphs=False).cuda_graphs is False
    monkeypatch.setattr(ort, "__version__", "1.30.0")
    assert device.choose("cuda").cuda_graphs is False


def test_calls_suit_the_device() -> None:
    assert device.Device("cpu").batching(256) == Batching(256)
    on_gpu = device.Device("cuda").batching(100)
    assert (on_gpu.rows, on_gpu.row_buckets) == (100, (16, 32, 64, 100))
    assert on_gpu.runs.max_rows > Batching().runs.max_rows
    assert min(on_gpu.runs.lengths) > min(Batching().runs.lengths)


def test_the_package_requires_that_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["cuda"]]
    found = [line for line in requirements if line.startswith("onnxruntime-gpu")]
    assert len(found) == 2
    assert all(">=1.31;" in line for line in found), found


@pytest.mark.parametrize("tf32", [False, True])
def test_products_are_rounded_to_tf32_only_on_request(monkeypatch: pytest.MonkeyPatch, tf32: bool) -> None:
    monkeypatch.setattr(device, "cuda_missing", lambda: None)
    on = device.choose("cuda", tf32=tf32)
    for fixed_buffers in (False, True):
        preferred = on.providers(fixed_buffers=fixed_buffers)[0]
        assert isinstance(preferred, tuple)
        assert preferred[1]["use_tf32"] == str(int(tf32))


class Copier:
    """A session that launches no kernel of its own, as on a GPU for which ONNX Runtime has none."""

    def run(self, _: None, given: dict[str, Any]) -> list[Any]:
        return [given["b"]]


@pytest.mark.parametrize("computes", [True, False])
def test_the_probe_compares_what_a_gpu_computes(monkeypatch: pytest.MonkeyPatch, computes: bool) -> None:
    plain: Callable[..., ort.InferenceSession] = device.Device.session

    def session(_: device.Device, model: bytes) -> ort.InferenceSession | Copier:
        return plain(device.Device("cpu"), model) if computes else Copier()

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(device, "_load_libraries", lambda: None)
    monkeypatch.setattr(device.Device, "session", session)
    if computes:
        assert device.choose("cuda").name == "cuda"
        return
    with pytest.raises(DeviceError, match=r"the GPU computed .* in a probe, expected"):
        device.choose("cuda")
