"""A table that is read and written at single places of its rows, in PyTorch and in ONNX.

Owns: `take` and `put`, which the exporter turns into one GatherND and one ScatterND. What PyTorch's own indexing is
lowered to goes over whole rows, or over the table. `rillcast_training.export.tracing` puts the state of all streams
in the place of the
table, so that an event touches the places that it needs, not all that its stream remembers. Does not know: what is in a
table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def take(table: Tensor, places: Tensor) -> Tensor:
    """Return `[B, K, ...]`, what stands at some places.

    Args:
        table: `[N, E, ...]`.
        places: `[B, K, 2]` int64, row and place in it.
    """
    taken: Tensor = _Take.apply(table, places)
    return taken


def put(table: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Return the table with other values at some places.

    Args:
        table: `[N, E, ...]`.
        places: `[B, K, 2]` int64, row and place in it; none twice.
        values: `[B, K, ...]`.
    """
    changed: Tensor = _Put.apply(table, places, values)
    return changed


class _Take(torch.autograd.Function):
    """Never differentiated."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Tensor) -> Tensor:  # noqa: ARG004  the signature is PyTorch's
        return table[places[..., 0], places[..., 1]]

    @staticmethod
    def symbolic(g: Any, table: Any, places: Any) -> Any:
        sizes = [None, None, *table.type().varyingSizes()[2:]]
        return g.op("GatherND", table, places).setType(table.type().with_sizes(sizes))


class _Put(torch.autograd.Function):
    """Never differentiated."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Tensor, values: Tensor) -> Tensor:  # noqa: ARG004  likewise
        return table.index_put((places[..., 0], places[..., 1]), values)

    @staticmethod
    def symbolic(g: Any, table: Any, places: Any, values: Any) -> Any:
        return g.op("ScatterND", table, places, values).setType(table.type())
