"""Host memory that a GPU reads and writes by itself: page-locked ("pinned"), so that a copy needs no staging buffer.

ONNX Runtime's own interface for it allocates only where it has discovered the GPU as an "execution provider device",
for which its CUDA library must be registered once more. CUDA's own call needs no such thing. It is found in the library
that the provider has loaded, whatever its version.

Owns: allocation and release of such memory.
Does not know: what is copied, or when.
Source: "Page-Locked Host Memory" in the CUDA C++ Programming Guide.
"""

from __future__ import annotations

import ctypes
import logging
import math
import weakref
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rillcast.arrays import AnyArray

log = logging.getLogger(__name__)
_DEFAULT: Final = 0  # cudaHostAllocDefault
_SUCCESS: Final = 0


def page_locked(shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
    """Return an array of zeros in page-locked memory, or in ordinary memory where CUDA gives none; a log line says why.

    The memory is released with the last array that views it. Not to be called while a CUDA graph is captured.
    """
    dtype = np.dtype(dtype)
    size = max(1, math.prod(shape) * dtype.itemsize)
    memory = _allocate(size)
    return np.zeros(shape, dtype) if memory is None else np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)


def is_page_locked(array: AnyArray) -> bool:
    """Return whether an array of `page_locked` is what it is named after."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base is not None


def _allocate(size: int) -> Any:
    try:
        runtime = _runtime()
        address = ctypes.c_void_p()
        status = runtime.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(_DEFAULT))
        if status != _SUCCESS:
            runtime.cudaGetLastError()  # else ONNX Runtime's next call would report it
            raise OSError(f"cudaHostAlloc returned {status}")
    except (OSError, AttributeError) as error:
        _warn_once(str(error))
        return None
    assert address.value is not None
    memory = (ctypes.c_char * size).from_address(address.value)
    ctypes.memset(address, 0, size)
    # At the end of the process the driver releases everything, perhaps before Python would.
    weakref.finalize(memory, runtime.cudaFreeHost, address).atexit = False
    return memory


@cache
def _runtime() -> ctypes.CDLL:
    """Return the CUDA runtime, which the linker finds among the libraries of the provider."""
    return ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))


@cache
def _warn_once(reason: str) -> None:
    log.warning("copies to and from the GPU go through ordinary memory, because no page-locked memory: %s", reason)
