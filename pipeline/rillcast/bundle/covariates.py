"""Covariates: the inputs of a bundle in addition to the observation.

    past      a number that is known when its period is observed: measured weather
    known     a number that is also known for periods ahead: a price, a promotion, a holiday
    static    a number of the stream: the size of a shop
    category  a text of the stream or the event: one that training has seen, or unknown

A missing value is NaN in every input. A category is its index among the declared ones, from 1; 0 = unknown.

Owns: the kinds, the declaration of each covariate, and their order in the graph's inputs.
Does not know: where values come from (`rillcast.codecs.observations.covariates`), or how a model uses them
(`rillcast_training.model.covariates`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, get_args

from pydantic import ConfigDict

Kind: TypeAlias = Literal["past", "known", "static", "category"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MAX_COVARIATES: Final = 256
MAX_CATEGORIES: Final = 10_000
UNKNOWN: Final = 0
_NAME: Final = re.compile(r"[^\s.$\[\]][^\s\[\]]{0,99}")


@dataclass(frozen=True, slots=True)
class Covariate:
    """One covariate of a bundle.

    Attributes:
        name: Name of the record's member that brings it.
        kind: Kind of the covariate, see the module.
        loc: A usual value in the training data, subtracted from numbers.
        scale: A usual distance from `loc`, > 0.
        categories: The known texts of a category.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    kind: Kind
    loc: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"covariate name {self.name!r}: expected 1 to 100 characters, no space or bracket")
        if self.kind not in KINDS:
            raise ValueError(f"covariate {self.name!r} is of kind {self.kind!r}, expected one of {list(KINDS)}")
        if not (math.isfinite(self.loc) and math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(
                f"covariate {self.name!r}: loc {self.loc} and scale {self.scale} must be finite, scale > 0"
            )
        if bool(self.categories) != (self.kind == "category"):
            raise ValueError(f"covariate {self.name!r} of kind {self.kind!r}: {len(self.categories)} categories")
        if len(set(self.categories)) != len(self.categories) or len(self.categories) > MAX_CATEGORIES:
            raise ValueError(f"covariate {self.name!r}: categories repeat, or are more than {MAX_CATEGORIES}")

    @property
    def of_the_stream(self) -> bool:
        """Whether the table of streams may bring it."""
        return self.kind in ("static", "category")


def check(covariates: Sequence[Covariate]) -> None:
    """Require that a bundle may declare these covariates together.

    Raises:
        ValueError: Names repeat, or there are too many.
    """
    names = [covariate.name for covariate in covariates]
    if len(set(names)) != len(names):
        raise ValueError(f"covariate names repeat: {names}")
    if len(names) > MAX_COVARIATES:
        raise ValueError(f"{len(names)} covariates, the limit is {MAX_COVARIATES}")


def ahead(covariates: Sequence[Covariate]) -> tuple[Covariate, ...]:
    """Return the covariates with values for periods ahead, in the order of the input `future`."""
    return tuple(covariate for covariate in covariates if covariate.kind == "known")
