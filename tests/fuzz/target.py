"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from outside.

    Attributes:
        run: Raises if a promise is broken.
        seeds: Honest inputs, and some that are known to be bad.
        share: Share of the inputs of a long run.
        short: Inputs of the short form in `make test`.
        poll: Takes many of them at once, as the service does, in a long run; None = it takes one at a time.
    """

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    share: float
    short: int = 1_000
    poll: Callable[[Sequence[bytes]], None] | None = None
