"""What runs event after event inside a graph that takes many events at once.

Owns: `scan`, a loop over the leading axis whose body is a module. Run eagerly it is a Python loop; traced for ONNX it
is one node, `rillcast::Scan`, which `rillcast_training.export.sequence_export` turns into ONNX's `Scan` around the
body's own export.
Does not know: cells, calibration, or what the graph is for.
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
        name: of the body; unique within a graph.
        body: its outputs start with the next state.
        state: before the first t.
        inputs: `[T, ...]` each.
        constants: the same for every t.

    Returns:
        The state after the last t, and the outputs, `[T, ...]` each.
    """
    results = _Scan.apply(name, body, len(state), len(inputs), *constants, *state, *inputs)
    return tuple(results[: len(state)]), tuple(results[len(state) :])


# What a scan gave when it was traced, until it is exported: values of the graph have lost their shapes by then.
_traced: dict[str, tuple[Tensor, ...]] = {}


class _Scan(torch.autograd.Function):
    """A loop that the ONNX exporter sees as one operator; never differentiated."""

    @staticmethod
    def forward(ctx: Any, name: str, body: nn.Module, states: int, inputs: int, *tensors: Tensor) -> Any:  # noqa: ARG004
        tracer: Any = torch._C  # which has no public way to look away
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
    # Views and inputs may not leave an autograd function as they are.
    return (*(part.clone() for part in state), *(torch.stack(parts) for parts in zip(*outputs, strict=True)))
