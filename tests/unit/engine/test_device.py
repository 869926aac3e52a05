from __future__ import annotations

import onnxruntime as ort
import pytest

from rillcast.engine import device
from rillcast.errors import DeviceError
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
