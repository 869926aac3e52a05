"""Builds a CUDA that computes nothing, over which ONNX Runtime's real CUDA provider loads without a GPU.

So tests see what ONNX Runtime decides on the host: captures, replays, copies, addresses, math modes. They see no number
that a GPU would compute, and nothing here says how fast a GPU is.

`runtime.c` and `cublas.c` have the functions that do something. The others that the provider of the installed
onnxruntime-gpu needs are read from its file; they succeed and do nothing.

Owns: the libraries, and the processes over them. Does not know: what is tested.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
WRITTEN: Final = {"cudart": HERE / "runtime.c", "cublas": HERE / "cublas.c", "cublasLt": None}
COUNTS: Final = (
    "kernels",
    "captures",
    "replays",
    "allocations",
    "to_device",
    "to_host",
    "within_device",
    "pageable",
    "captured_pageable",
    "syncs",
    "cudnn",
    "blocking",
)
"""In the order of `runtime.c`; `blocking` copies wait for their end, `cudnn` counts reductions."""
CUDNN: Final = "libcudnn.so.9"
DRIVER: Final = "int cuInit(unsigned flags) { return 0; }\nint cuTensorMapEncodeTiled(void) { return 0; }\n"


def _provider() -> Path:
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "capi" / "libonnxruntime_providers_cuda.so"


def _headers() -> Path | None:
    found = importlib.util.find_spec("nvidia")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    return next((h.parent for folder in folders for h in Path(folder).glob("cu*/include/cuda_runtime_api.h")), None)


def missing_tools() -> str | None:
    """Return why the libraries cannot be built here, else None."""
    missing = [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if _headers() is None:
        return "the headers of CUDA are not installed (nvidia-cuda-runtime, which PyTorch brings)"
    return None


def has_provider() -> bool:
    """Return whether the installed ONNX Runtime has a CUDA provider."""
    return sys.platform == "linux" and _provider().exists()


@dataclass(frozen=True)
class StandIn:
    """The built libraries."""

    folder: Path

    def run(self, code: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Python code in a process that finds these libraries before all others."""
        environment = os.environ | {"LD_LIBRARY_PATH": str(self.folder)} | dict(variables or {})
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)


def build(folder: Path) -> StandIn:
    """Compile the libraries into a folder."""
    listing = ["nm", "-D", "--undefined-only", str(_provider())]
    listed = subprocess.run(listing, capture_output=True, text=True, check=True)
    needed = re.findall(r" U (\w+)@lib(\w+)\.so\.(\d+)", listed.stdout)
    version = next(number for _, library, number in needed if library == "cudart")
    for library, written in WRITTEN.items():
        text = "" if written is None else written.read_text()
        names = sorted(name for name, of, _ in needed if of == library)
        stubs = "#include <stdlib.h>\n" + "".join(_stub(name) for name in names if not re.search(rf"\b{name}\(", text))
        others = [] if library == "cudart" else [folder / f"libcudart.so.{version}"]
        _compile(folder, f"lib{library}.so.{version}", stubs, [*filter(None, [written]), *others])
    _compile(folder, "libcurand.so.10", "int curand;\n", [])
    _compile(folder, "libcuda.so.1", DRIVER, [], versioned=False)
    # The provider opens cuDNN when an operator needs it, and finds the functions by name.
    names = sorted(set(re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", _provider().read_bytes())))
    stubs = "".join(_cudnn_stub(name.decode()) for name in names)
    _compile(folder, CUDNN, CUDNN_HEAD + stubs, [folder / f"libcudart.so.{version}"], versioned=False)
    return StandIn(folder)


def _stub(name: str) -> str:
    """Return a function that succeeds; one that creates something returns a handle."""
    if re.search(r"Create(_v2)?$", name):
        return f"int {name}(void **handle) {{ *handle = calloc(1, 4096); return 0; }}\n"
    return f"int {name}(void) {{ return 0; }}\n"


CUDNN_HEAD: Final = "#include <stdlib.h>\nextern void stand_in_add(int);\n"


def _cudnn_stub(name: str) -> str:
    if name == "cudnnGetVersion":
        return f"unsigned long {name}(void) {{ return 92600; }}\n"
    if re.search("Get(Last)?ErrorString$", name):
        return f'const char *{name}(void) {{ return ""; }}\n'
    if name.startswith("cudnnCreate"):
        return f"int {name}(void **handle) {{ *handle = calloc(1, 4096); return 0; }}\n"
    if name in ("cudnnGetReductionIndicesSize", "cudnnGetReductionWorkspaceSize"):
        return f"int {name}(void *h, void *r, void *a, void *c, size_t *size) {{ *size = 256; return 0; }}\n"
    counted = f"stand_in_add({COUNTS.index('cudnn')}); " if name == "cudnnReduceTensor" else ""
    return f"int {name}(void) {{ {counted}return 0; }}\n"


def _compile(folder: Path, name: str, stubs: str, sources: Sequence[Path], *, versioned: bool = True) -> None:
    """Compile a library; the provider asks some for symbols of a version that has the library's name."""
    source, script = folder / f"{name}.c", folder / f"{name}.map"
    source.write_text(stubs)
    script.write_text(f"{name} {{ global: *; }};\n")
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-O1",
        "-w",
        f"-I{HERE}",
        f"-I{_headers()}",
        "-pthread",
        f"-Wl,-soname,{name}",
    ]
    if versioned:
        command.append(f"-Wl,--version-script={script}")
    subprocess.run([*command, "-o", str(folder / name), str(source), *map(str, sources)], check=True)


class Seen:
    """What the libraries have seen, read in the process that they are loaded in."""

    def __init__(self) -> None:
        folder = Path(os.environ["LD_LIBRARY_PATH"])
        self._runtime = ctypes.CDLL(str(next(folder.glob("libcudart.so.??"))))
        self._cublas = ctypes.CDLL(str(next(folder.glob("libcublas.so.??"))))
        self._runtime.stand_in_faults.restype = ctypes.c_char_p
        self._runtime.stand_in_host_copy.restype = ctypes.c_void_p

    def __getattr__(self, name: str) -> int:
        """Return a count of `COUNTS`."""
        if name not in COUNTS:
            raise AttributeError(name)
        return int(self._runtime.stand_in_count(COUNTS.index(name)))

    @property
    def products(self) -> int:
        """Products of cuBLAS."""
        return int(self._cublas.stand_in_products())

    @property
    def tf32_modes(self) -> int:
        """How often cuBLAS was set to TensorFloat-32."""
        return int(self._cublas.stand_in_tf32_modes())

    @property
    def faults(self) -> list[str]:
        """Calls that broke the rules of a capture."""
        return str(self._runtime.stand_in_faults().decode()).splitlines()

    def counts(self) -> dict[str, int]:
        """Return all counts by name."""
        return {name: int(getattr(self, name)) for name in (*COUNTS, "products")}

    def copied_from_host(self, n_bytes: int) -> list[int]:
        """Return the addresses to which copies of this many bytes from host memory went, in order."""
        size, found = ctypes.c_size_t(), []
        for index in range(int(self._runtime.stand_in_host_copies())):
            address = self._runtime.stand_in_host_copy(index, ctypes.byref(size))
            if size.value == n_bytes:
                found.append(int(address))
        return found
