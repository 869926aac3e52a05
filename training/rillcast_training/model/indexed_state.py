"""State that is read and written at single entries of its rows, in PyTorch and in ONNX.

Owns: `take` and `put`, which the exporter turns into one GatherND and one ScatterND. PyTorch's own indexing would
become operators over whole rows, or over the whole table. `rillcast_training.export.tracing` replaces the table by the
state of all streams, so an event touches only the entries that it needs. Does not know: the contents of a table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def take(table: Tensor, indices: Tensor) -> Tensor:
    """Return `[B, K, ...]`, the values at some entries.

    Args:
        table: `[N, E, ...]`.
        indices: `[B, K, 2]` int64, row and entry.
    """
    taken: Tensor = _Take.apply(table, indices)
    return taken


def put(table: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    """Return the table with other values at some entries.

    Args:
        table: `[N, E, ...]`.
        indices: `[B, K, 2]` int64, row and entry; unique.
        values: `[B, K, ...]`.
    """
    changed: Tensor = _Put.apply(table, indices, values)
    return changed


class _Take(torch.autograd.Function):
    """Never differentiated."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, indices: Tensor) -> Tensor:  # noqa: ARG004  the signature is PyTorch's
        return table[indices[..., 0], indices[..., 1]]

    @staticmethod
    def symbolic(g: Any, table: Any, indices: Any) -> Any:
        sizes = [None, None, *table.type().varyingSizes()[2:]]
        return g.op("GatherND", table, indices).setType(table.type().with_sizes(sizes))


class _Put(torch.autograd.Function):
    """Never differentiated."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, indices: Tensor, values: Tensor) -> Tensor:  # noqa: ARG004  the signature is PyTorch's
        return table.index_put((indices[..., 0], indices[..., 1]), values)

    @staticmethod
    def symbolic(g: Any, table: Any, indices: Any, values: Any) -> Any:
        return g.op("ScatterND", table, indices, values).setType(table.type())
