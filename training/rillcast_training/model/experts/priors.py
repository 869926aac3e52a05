"""What is known of the experts before a stream begins: how large their errors are, relative to the plain experts'.

Owns: the shipped table, and how it is read for any season, expert and horizon. Does not know: how the table was made
(`rillcast_training.research.expert_priors` measures it on synthetic series), or how a prior is used.

The table has one entry for each of some pairs of seasons. A configuration takes the entry with as many seasons whose
lengths are the nearest by ratio, of each expert the one with the same base and the nearest decay, and horizons between
the entry's on lines over their logarithm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np

FILE: Final = "priors.json"
_UNKNOWN: Final = 1.5  # of a base that the table does not have


@dataclass(frozen=True, slots=True)
class Prior:
    """Errors of the experts on streams of some class.

    Attributes:
        relative: For each anchor, each expert's mean error over that of the plain ones. Empty = the table's.
        growth: For each anchor, the plain ones' error over that one period ahead. Empty = the table's.
    """

    relative: tuple[tuple[float, ...], ...] = ()
    growth: tuple[float, ...] = ()

    def check(self, anchors: int, experts: int) -> None:
        """Raise `ValueError` where there is not one figure for each."""
        if len(self.growth) != anchors or [len(row) for row in self.relative] != [experts] * anchors:
            raise ValueError(f"prior: expected {anchors} anchors of {experts} experts")


def usual_prior(
    seasons: tuple[int, ...], experts: Sequence[tuple[str, float]], anchors: Sequence[int], entries: Any = None
) -> Prior:
    """Return the prior of the table's nearest entry.

    Args:
        seasons: One or two lengths in periods, the shorter first.
        experts: Base and decay of each.
        anchors: Horizons.
        entries: The table; None = the shipped one.
    """
    table = _shipped() if entries is None else entries
    entry = min((one for one in table if len(one["seasons"]) == len(seasons)), key=lambda one: _distance(one, seasons))
    known = np.log(entry["anchors"])

    def at_anchors(values: list[float]) -> list[float]:
        return [round(float(value), 3) for value in np.interp(np.log(anchors), known, values)]

    columns = [at_anchors(_relative(entry, base, decay)) for base, decay in experts]
    return Prior(tuple(zip(*columns, strict=True)), tuple(at_anchors(entry["growth"])))


@cache
def _shipped() -> Any:
    return json.loads(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))


def _distance(entry: Any, seasons: tuple[int, ...]) -> float:
    return sum(abs(math.log(own / other)) for own, other in zip(entry["seasons"], seasons, strict=True))


def _relative(entry: Any, base: str, decay: float) -> list[float]:
    same = [one for one in entry["experts"] if one["base"] == base]
    if not same:
        return [_UNKNOWN] * len(entry["anchors"])
    nearest: list[float] = min(same, key=lambda one: abs(one["decay"] - decay))["relative"]
    return nearest
