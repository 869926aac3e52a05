"""Sums and powers whose last bits depend neither on the batch nor on a row's place in it, and that cost little.

Owns: how they are written for the exported graph. Does not know: what is added up.
"""

from __future__ import annotations

import torch
from torch import Tensor


def total(x: Tensor, count: int, dim: int) -> Tensor:
    """Return the sum over a dimension of `count` rows, which stays; of two by one addition, which is quicker."""
    if count != 2:
        return x.sum(dim=dim, keepdim=True)
    first, second = torch.split(x, 1, dim=dim)
    return first + second


def power(x: Tensor, exponent: int) -> Tensor:
    """Return `x ** exponent` by squaring: no logarithm, whose last bits may depend on the place in the batch."""
    result, square = None, x
    while exponent:
        if exponent % 2:
            result = square if result is None else result * square
        exponent //= 2
        if exponent:
            square = square * square
    assert result is not None  # the exponent is positive
    return result
