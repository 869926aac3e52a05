"""docs/recurrence.md: its blocks run, and print what stands under them."""

from __future__ import annotations

import pytest
import torch

from rillcast_training.model.cells import CELLS
from tests.support import pages
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "recurrence.md"
EXPLODED = 10_000


def alike(found: float, shown: float) -> bool:
    """Rounding differs between processors and releases; learning makes more of it, and an explosion much more."""
    if min(found, shown) > EXPLODED:
        return 0.1 < found / shown < 10
    return found == pytest.approx(shown, rel=0.25, abs=0.1)


@pytest.mark.timeout(900)  # it trains a dozen small networks: some twenty seconds of one idle core
def test_every_block_prints_what_the_page_says() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = pages.run(PAGE)
    finally:
        torch.set_num_threads(threads)
    assert len(found) >= 7
    for block, printed in found:
        assert block.shown is not None, f"line {block.line}: nothing is said of what the block prints"
        assert pages.words(printed) == pages.words(block.shown), f"line {block.line}"
        pairs = zip(pages.numbers(printed), pages.numbers(block.shown), strict=True)
        assert [pair for pair in pairs if not alike(*pair)] == [], f"line {block.line}"


def test_the_page_has_every_cell() -> None:
    text = PAGE.read_text()
    assert all(f"| `{name}` |" in text for name in CELLS)
