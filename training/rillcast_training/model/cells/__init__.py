"""Recurrent cells by name: one interface, two views of one set of weights.

Owns: the table of names. The interface is `rillcast_training.model.cells.base.Cell`; each cell, with its equations and
sources, has its own file. Cells with a fused kernel in PyTorch build on `fused.FusedCell`, the others on
`residual.ResidualCell`. docs/recurrence.md teaches the method on them.
"""

from __future__ import annotations

from typing import Final

from rillcast_training.model.cells.base import Cell
from rillcast_training.model.cells.elman import ElmanCell
from rillcast_training.model.cells.gru import GruCell
from rillcast_training.model.cells.lru import LruCell
from rillcast_training.model.cells.lstm import LstmCell
from rillcast_training.model.cells.mingru import MinGruCell
from rillcast_training.model.cells.slstm import SlstmCell

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
