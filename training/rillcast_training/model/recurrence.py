"""The loop over events inside a graph that takes many events at once.

Owns: `scan`, a loop over the leading axis whose body is a module. Eagerly it is a Python loop. Traced for ONNX it is
one node, `rillcast::Scan`, which `rillcast_training.export.sequence_export` turns into ONNX's `Scan` around the
exported body. Does not know: cells, calibration, or the purpose of the graph.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

DOMAIN: Final = "rillcast"


def scan(
    name: str,
    body: nn.Module,
    state: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    constants: tuple[Tensor, ...] = (),
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Run `body(*constants, *state, *inputs[t]) -> (*state, *outputs[t])` for every t.

    Args:
        name: Name of the body; unique within a graph.
        body: Module whose outputs start with the next state.
        state: State before the first t.
        inputs: `[T, ...]` each.
        constants: Inputs that are the same for every t.

    Returns:
        The state after the last t, and the outputs, `[T, ...]` each.
    """
    results = _Scan.apply(name, body, len(state), len(inputs), *constants, *state, *inputs)
    return tuple(results[: len(state)]), tuple(results[len(state) :])


# Results of traced scans until they are exported: values of the graph have lost their shapes by then.
_traced: dict[str, tuple[Tensor, ...]] = {}


class _Scan(torch.autograd.Function):
    """A loop that the ONNX exporter sees as one operator. It is never differentiated."""

    @staticmethod
    def forward(ctx: Any, name: str, body: nn.Module, states: int, inputs: int, *tensors: Tensor) -> Any:  # noqa: ARG004
        tracer: Any = torch._C  # the public API cannot pause a trace
        tracing = tracer._get_tracing_state()
        tracer._set_tracing_state(None)
        try:
            results = _loop(body, states, inputs, tensors)
        finally:
            tracer._set_tracing_state(tracing)
        if tracing is not None:
            _traced[name] = results
        return results

    @staticmethod
    def symbolic(g: Any, name: str, body: nn.Module, states: int, inputs: int, *tensors: Any) -> Any:  # noqa: ARG004
        results = _traced.pop(name)
        kind: Any = torch._C.TensorType
        values = g.op(f"{DOMAIN}::Scan", *tensors, body_s=name, states_i=states, inputs_i=inputs, outputs=len(results))
        for number, (value, like) in enumerate(zip(values, results, strict=True)):
            dynamic = 1 if number < states else 2  # [B, ...] and [T, B, ...]
            sizes = [None if axis < dynamic else size for axis, size in enumerate(like.shape)]
            value.setType(kind.create_from_tensor(like).with_sizes(sizes))
        return values


def _loop(body: nn.Module, states: int, inputs: int, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    first = len(tensors) - inputs
    constants, state, sequences = tensors[: first - states], tensors[first - states : first], tensors[first:]
    outputs: list[tuple[Tensor, ...]] = []
    for now in zip(*(sequence.unbind(0) for sequence in sequences), strict=True):
        results = body(*constants, *state, *now)
        state, output = results[:states], results[states:]
        outputs.append(output)
    # An autograd function may not return views or its inputs.
    return (*(part.clone() for part in state), *(torch.stack(parts) for parts in zip(*outputs, strict=True)))
