"""The choice of the ONNX Runtime provider, and the sessions on it.

`cuda` without a working GPU is an error; only `auto` falls back to the CPU, and logs why. ONNX Runtime's GPU build
lists CUDA on machines without a GPU, so a small model runs as a probe.

Owns: the choice of the provider, and the options of sessions.
Does not know: bundles, state.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from rillcast.errors import DeviceError

log = logging.getLogger(__name__)

DeviceName: TypeAlias = Literal["auto", "cuda", "cpu"]
OPSET = 18
IR_VERSION = 10
_WARNING, _FATAL = 2, 4


@dataclass(frozen=True, slots=True)
class Device:
    """A device for state and model.

    Attributes:
        name: Name of the provider.
        threads: Threads of ONNX Runtime inside one call.
        cuda_graphs: Whether calls with fixed buffers are captured as CUDA graphs. The CPU provider ignores it; `choose`
            refuses it there.
    """

    name: Literal["cuda", "cpu"]
    threads: int = 1
    cuda_graphs: bool = False

    def providers(self, *, fixed_buffers: bool = False) -> list[str | tuple[str, dict[str, str]]]:
        """Return the providers for a session, the preferred one first.

        Args:
            fixed_buffers: Whether every run uses the same buffers as earlier runs of its shape, as CUDA graphs need.
        """
        if self.name == "cpu":
            return ["CPUExecutionProvider"]
        captured = self.cuda_graphs and fixed_buffers
        cuda = ("CUDAExecutionProvider", {"enable_cuda_graph": "1"}) if captured else "CUDAExecutionProvider"
        return [cuda, "CPUExecutionProvider"]

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
            session = ort.InferenceSession(model, options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            captured = " with CUDA graphs (or set cuda_graphs=false)" if self.cuda_graphs and fixed_buffers else ""
            raise DeviceError(
                f"ONNX Runtime {ort.__version__} cannot load the model on {self.name}{captured}: {error}"
            ) from error
        if self.name == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
            raise DeviceError(f"ONNX Runtime runs the model on {session.get_providers()}, expected {self.name}")
        return session

    def row_buckets(self, batch_rows: int) -> tuple[int, ...]:
        """Return the batch sizes to which calls are padded: on CUDA powers of four up to `batch_rows`, on the CPU none.

        A GPU kernel costs as much for one row as for hundreds, and few shapes need few plans, buffers and kernels. On
        the CPU every padding row costs time.
        """
        if self.name == "cpu":
            return ()
        sizes = [size for size in (4**power for power in range(2, 16)) if size < batch_rows]
        return (*sizes, batch_rows)

    def upload(self, array: np.ndarray[Any, Any]) -> ort.OrtValue:
        """Copy an array to the device. On the CPU the value and the array share memory."""
        return ort.OrtValue.ortvalue_from_numpy(array, self.name, 0)


def choose(name: DeviceName, threads: int = 1, *, cuda_graphs: bool = False) -> Device:
    """Return the device to use.

    Raises:
        DeviceError: CUDA was requested and does not work here, or CUDA graphs were requested on another device.
    """
    if name == "cpu":
        if cuda_graphs:
            raise DeviceError("cuda_graphs=true, but device=cpu; set device=cuda, or cuda_graphs=false")
        return Device("cpu", threads)
    reason = _cuda_missing()
    if reason is None:
        return Device("cuda", threads, cuda_graphs)
    if name == "cuda":
        raise DeviceError(f"device=cuda, but {reason}; install a CUDA 12 driver and runtime, or set device=cpu or auto")
    if cuda_graphs:
        raise DeviceError(
            f"cuda_graphs=true, but device=auto found no CUDA: {reason}; install a CUDA 12 driver and runtime, or set "
            "cuda_graphs=false"
        )
    log.info("device=auto: running on the CPU because %s", reason)
    return Device("cpu", threads)


def _cuda_missing() -> str | None:
    """Return why CUDA cannot be used; None where it can."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"this build of ONNX Runtime ({ort.__version__}) has no CUDA provider"
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["same"])], "probe", [value], [same])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    ort.set_default_logger_severity(_FATAL)  # the caller reports a failed probe in one line
    try:
        session = Device("cuda").session(model.SerializeToString())
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no other base
        return str(error)
    finally:
        ort.set_default_logger_severity(_WARNING)
    return None
