"""The choice of the ONNX Runtime provider, and the sessions on it.

`cuda` without a working GPU is an error; only `auto` falls back to the CPU, and logs why. ONNX Runtime's GPU build
lists CUDA on machines without a GPU, and on a GPU for which it has no kernels. So a small model computes as a probe,
and its result is compared.

Owns: the choice of the provider, and the options of sessions.
Does not know: bundles, state.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto, helper

from rillcast.arrays import AnyArray
from rillcast.engine import host_memory
from rillcast.engine.batcher import DEFAULT_RUNS, Batching, Runs
from rillcast.engine.capture_lock import CAPTURES
from rillcast.errors import DeviceError

log = logging.getLogger(__name__)

DeviceName: TypeAlias = Literal["auto", "cuda", "cpu"]
CudaGraphs: TypeAlias = bool | Literal["auto"]
"""Whether to capture CUDA graphs; `auto` = on CUDA, for models that can be captured."""
OPSET = 18
IR_VERSION = 10
GRAPHS_SINCE: Final = (1, 31)
"""The first version of ONNX Runtime that replays a captured step rightly (its issues 32120 and 32121)."""
_WARNING, _ERROR, _FATAL = 2, 3, 4
_CUDA: Final = "CUDAExecutionProvider"
_CUDA_RUNS: Final = Runs(lengths=(256, 64, 16), max_rows=16_384)
"""An estimate from counts of launches, which do not depend on the number of streams: of a GRU's sequence graph about
330, and 60 for each period; of its step 380, in a CUDA graph. So runs pay for any number of streams that memory holds
(outputs of 30 MB), from about 7 periods on if a launch outside of a CUDA graph costs three times one inside."""
_ADVICE: Final = "install an NVIDIA driver of 580 or later, and CUDA 13 (pip install 'rillcast[cuda]')"


@dataclass(frozen=True, slots=True)
class Device:
    """A device for state and model.

    Attributes:
        name: Name of the provider.
        threads: Threads of ONNX Runtime inside one call.
        cuda_graphs: Whether calls with fixed buffers are captured as CUDA graphs; with `auto` a model that cannot be
            captured runs without. The CPU provider ignores it; `choose` refuses it there.
        tf32: Whether CUDA may round factors of float32 products to TensorFloat-32, 10 bits of mantissa for 23.
    """

    name: Literal["cuda", "cpu"]
    threads: int = 1
    cuda_graphs: CudaGraphs = False
    tf32: bool = False

    def providers(self, *, fixed_buffers: bool = False) -> list[str | tuple[str, dict[str, str]]]:
        """Return the providers for a session, the preferred one first.

        Args:
            fixed_buffers: Whether every run uses the same buffers as earlier runs of its shape, as CUDA graphs need.
        """
        if self.name == "cpu":
            return ["CPUExecutionProvider"]
        options = {"use_tf32": str(int(self.tf32))}  # ONNX Runtime's default is 1
        if self.cuda_graphs and fixed_buffers:
            options["enable_cuda_graph"] = "1"
        return [(_CUDA, options), "CPUExecutionProvider"]

    def session(self, model: bytes, *, fixed_buffers: bool = False) -> ort.InferenceSession:
        """Load a model on this device.

        Args:
            model: Bytes of the ONNX model.
            fixed_buffers: See `providers`.

        Raises:
            DeviceError: ONNX Runtime refuses the model, or would run it on another device.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads would occupy the core that the Kafka client needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = self.providers(fixed_buffers=fixed_buffers)
        try:
            # With its fallback ONNX Runtime prints to stdout and loads the model on the CPU.
            with self.work():
                session = ort.InferenceSession(model, options, providers=providers, enable_fallback=False)
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            captured = " with CUDA graphs (or set cuda_graphs=false)" if self.cuda_graphs and fixed_buffers else ""
            raise DeviceError(
                f"ONNX Runtime {ort.__version__} cannot load the model on {self.name}{captured}: {error}"
            ) from error
        if self.name == "cuda" and _CUDA not in session.get_providers():
            raise DeviceError(f"ONNX Runtime runs the model on {session.get_providers()}, expected {self.name}")
        return session

    def row_buckets(self, batch_rows: int) -> tuple[int, ...]:
        """Return the batch sizes to which calls are padded: on CUDA powers of two up to `batch_rows`, on the CPU none.

        A small kernel costs as much for one row as for hundreds, and few shapes need few plans, buffers and graphs. All
        rows of a bucket come back, so it is at most twice as large as its call, except for the smallest. On the CPU
        every padding row costs time.
        """
        if self.name == "cpu":
            return ()
        sizes = [size for size in (2**power for power in range(4, 31)) if size < batch_rows]
        return (*sizes, batch_rows)

    def batching(self, rows: int) -> Batching:
        """Return the rules by which calls of at most `rows` events suit the device."""
        return Batching(rows, self.row_buckets(rows), DEFAULT_RUNS if self.name == "cpu" else _CUDA_RUNS)

    def host_buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
        """Return zeros on the host for copies to and from the device; page-locked on CUDA where that works."""
        if self.name == "cpu":
            return np.zeros(shape, dtype)
        with self.work():
            return host_memory.page_locked(shape, dtype)

    def upload(self, array: np.ndarray[Any, Any]) -> ort.OrtValue:
        """Copy an array to the device. On the CPU the value and the array share memory."""
        with self.work():
            return ort.OrtValue.ortvalue_from_numpy(array, self.name, 0)

    def work(self) -> AbstractContextManager[None]:
        """Return a context for work on the device, in which no other thread captures a CUDA graph."""
        return CAPTURES.work() if self.cuda_graphs else nullcontext()


def choose(name: DeviceName, threads: int = 1, *, cuda_graphs: CudaGraphs = "auto", tf32: bool = False) -> Device:
    """Return the device to use.

    Args:
        name: The device; `auto` = CUDA where it works, else the CPU.
        threads: Threads of ONNX Runtime inside one call.
        cuda_graphs: Whether to capture CUDA graphs; `auto` = on CUDA with an ONNX Runtime that replays them rightly.
        tf32: See `Device`.

    Raises:
        DeviceError: CUDA was requested and does not work here, or CUDA graphs were requested on another device or with
            an ONNX Runtime that replays them wrongly.
    """
    if name == "cpu":
        if cuda_graphs is True:
            raise DeviceError("cuda_graphs=true, but device=cpu; set device=cuda, or cuda_graphs=false")
        return Device("cpu", threads)
    replays_rightly = _version() >= GRAPHS_SINCE
    if cuda_graphs is True and not replays_rightly:
        raise DeviceError(
            f"cuda_graphs=true, but ONNX Runtime {ort.__version__} replays the graphs of a step with wrong results; "
            "install onnxruntime-gpu 1.31 or later, or set cuda_graphs=false"
        )
    reason = cuda_missing()
    if reason is None:
        # On CUDA each ScatterND of a model warns that slots have to be unique. Only the scratch slot repeats.
        ort.set_default_logger_severity(_ERROR)
        return Device("cuda", threads, cuda_graphs if replays_rightly else False, tf32)
    if name == "cuda":
        raise DeviceError(f"device=cuda, but {reason}; {_ADVICE}, or set device=cpu or auto")
    if cuda_graphs is True:
        raise DeviceError(
            f"cuda_graphs=true, but device=auto found no CUDA: {reason}; {_ADVICE}, or set cuda_graphs=false"
        )
    log.info("device=auto: running on the CPU because %s", reason)
    return Device("cpu", threads)


def _version() -> tuple[int, ...]:
    """Return the major and the minor version of ONNX Runtime."""
    return tuple(int(part) for part in ort.__version__.split(".")[:2])


def cuda_missing() -> str | None:
    """Return why CUDA cannot be used; None where it can."""
    if _CUDA not in ort.get_available_providers():
        return f"this build of ONNX Runtime ({ort.__version__}) has no CUDA provider"
    cannot_load = f"ONNX Runtime {ort.__version__} cannot load its CUDA provider"
    try:
        _load_libraries()
    except OSError as error:
        return f"{cannot_load}: {error}"
    ort.set_default_logger_severity(_FATAL)  # the caller reports a failed probe in one line
    try:
        return _wrong_result()
    except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no other base
        missing = _missing_library()
        return str(error) if missing is None else f"{cannot_load}: {missing}"
    finally:
        ort.set_default_logger_severity(_WARNING)


def _load_libraries() -> None:
    """Load the CUDA libraries of NVIDIA's wheels, because the provider has no search path of its own.

    Raises:
        OSError: The driver's library is missing.
    """
    ctypes.CDLL("libcuda.so.1")  # the driver's; without it the other libraries would be loaded for nothing
    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and stdout may be the output of a command
        ort.preload_dlls()


def _missing_library() -> str | None:
    """Return the linker's message where a library that the CUDA provider needs is missing, else None.

    ONNX Runtime writes that message to its log only, and goes on with the CPU. Loading the provider's file gives it.
    """
    folder = Path(ort.__file__).parent / "capi"
    try:
        for library in ("shared", "cuda"):
            ctypes.CDLL(str(folder / f"libonnxruntime_providers_{library}.so"))
    except OSError as error:
        return str(error)
    return None


def _wrong_result() -> str | None:
    """Compute a Gemm and an Add on CUDA; return how their result is wrong, else None.

    A copy would not do: it works on a GPU for which ONNX Runtime has no kernels. The numbers are whole and small, so
    that every way to compute them is exact.

    Raises:
        DeviceError: The model cannot be loaded on CUDA.
    """
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    b = np.arange(8, dtype=np.float32).reshape(2, 4)
    given = {"x": x, "w": w, "b": b}
    nodes = [helper.make_node("Gemm", ["x", "w"], ["product"]), helper.make_node("Add", ["product", "b"], ["sum"])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in given.items()]
    output = helper.make_tensor_value_info("sum", TensorProto.FLOAT, b.shape)
    graph = helper.make_graph(nodes, "probe", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    (found,) = Device("cuda").session(model.SerializeToString()).run(None, given)
    expected = x @ w + b
    if np.array_equal(found, expected):
        return None
    return f"the GPU computed {found.tolist()} in a probe, expected {expected.tolist()}"
