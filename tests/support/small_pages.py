"""Pages of few slots, so that a handful of streams fills several and a snapshot takes several commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rillcast.engine import slots
from rillcast.stores.format import pages


@contextmanager
def small_pages(size: int) -> Iterator[None]:
    """Let pages have `size` slots."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (slots, pages):
            patch.setattr(module, "PAGE_SLOTS", size)
        yield
