"""Page-locked memory, with a CUDA runtime that allocates ordinary memory."""

from __future__ import annotations

import ctypes
import gc
import logging
from typing import Any

import numpy as np
import pytest

from rillcast.engine import host_memory
from rillcast.engine.device import Device


class Runtime:
    """Hands out buffers that are full of ones, and counts."""

    def __init__(self, status: int = 0) -> None:
        self.held: dict[int, Any] = {}
        self._status = status

    def cudaHostAlloc(self, address: Any, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:  # noqa: N802  CUDA's name
        if self._status:
            return self._status
        buffer = (ctypes.c_ubyte * size.value)(*[255] * size.value)
        address._obj.value = ctypes.addressof(buffer)
        self.held[ctypes.addressof(buffer)] = buffer
        return flags.value

    def cudaFreeHost(self, address: ctypes.c_void_p) -> None:  # noqa: N802  as above
        del self.held[address.value or 0]

    def cudaGetLastError(self) -> int:  # noqa: N802  as above
        return self._status


@pytest.fixture(autouse=True)
def _warnings_again() -> None:
    host_memory._warn_once.cache_clear()


def test_memory_is_zero_and_released_with_its_last_view(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    monkeypatch.setattr(host_memory, "_runtime", lambda: runtime)
    array = Device("cuda").host_buffer((3, 2), np.float32)
    np.testing.assert_array_equal(array, np.zeros((3, 2), np.float32))
    array[1] = 4
    view = array[1:2]
    del array
    gc.collect()
    assert len(runtime.held) == 1
    assert view.tolist() == [[4, 4]]
    del view
    gc.collect()
    assert runtime.held == {}


@pytest.mark.parametrize("shape", [(0,), (0, 5)])
def test_an_empty_array_is_none(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    monkeypatch.setattr(host_memory, "_runtime", Runtime)
    assert host_memory.page_locked(shape, np.int64).shape == shape


def test_ordinary_memory_serves_where_none_can_be_locked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_memory, "_runtime", lambda: Runtime(status=2))
    with caplog.at_level(logging.WARNING):
        arrays = [host_memory.page_locked((4,), np.float32) for _ in range(2)]
    for array in arrays:
        array[:] = 1
        assert array.tolist() == [1, 1, 1, 1]
    (message,) = [record.getMessage() for record in caplog.records]
    assert "cudaHostAlloc returned 2" in message


def test_a_library_without_cuda_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(host_memory, "_runtime", missing)
    assert host_memory.page_locked((2,), np.int8).tolist() == [0, 0]


def test_the_cpu_asks_cuda_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "_runtime", lambda: pytest.fail("asked"))
    assert Device("cpu").host_buffer((2,), np.int8).tolist() == [0, 0]
