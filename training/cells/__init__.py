"""Recurrent cells by name: one interface, two views of one set of weights.

Owns: the table of names. The interface is `training.cells.base.Cell`; each cell, with its equations and sources, has a
file of its own. Those that PyTorch has a fused kernel for stand on `fused.FusedCell`, the others on
`residual.ResidualCell`. docs/recurrence.md teaches the method on them.
"""

from __future__ import annotations

from typing import Final

from training.cells.base import Cell
from training.cells.elman import ElmanCell
from training.cells.gru import GruCell
from training.cells.lru import LruCell
from training.cells.lstm import LstmCell
from training.cells.mingru import MinGruCell
from training.cells.slstm import SlstmCell

__all__ = ["CELLS", "Cell", "make_cell"]

CELLS: Final[dict[str, type[Cell]]] = {
    cell.name: cell for cell in (ElmanCell, GruCell, LstmCell, MinGruCell, SlstmCell, LruCell)
}


def make_cell(name: str, input_size: int, hidden_size: int, num_layers: int) -> Cell:
    """Return a cell by name.

    Raises:
        ValueError: no cell has that name.
    """
    if name not in CELLS:
        raise ValueError(f"cell {name!r} is not one of {sorted(CELLS)}")
    return CELLS[name](input_size, hidden_size, num_layers)
