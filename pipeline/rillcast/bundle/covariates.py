"""Covariates: what a bundle says of the inputs that stand beside the observation.

Owns: the kinds, what is declared of each, and in which order they lie in the graph's inputs. Does not know: where
values come from (`rillcast.codecs.observations.covariates`), or what a model makes of them
(`rillcast_training.model.covariates`).

    past      a number that is known when its slot is observed: the weather as it was
    known     a number that is known for the slots ahead too: a price, a promotion, a holiday
    static    a number of the stream: the size of a shop
    category  a text of the stream or the event, one of those that were seen in training, or unknown

A value that is missing is NaN in every input; a category is its place among the declared ones, from 1, and 0 = unknown.
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
        name: of the member that brings it.
        kind: see the module.
        loc: a usual value in the training data; what a number is taken relative to.
        scale: a usual distance from `loc`; > 0.
        categories: of a category, the texts that are known.
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
            raise ValueError(f"covariate {self.name!r} is of kind {self.kind!r}; there are {list(KINDS)}")
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
        """Whether a table by stream may bring it."""
        return self.kind in ("static", "category")


def check(covariates: Sequence[Covariate]) -> None:
    """Require that covariates can stand beside each other.

    Raises:
        ValueError: names repeat, or there are too many.
    """
    names = [covariate.name for covariate in covariates]
    if len(set(names)) != len(names):
        raise ValueError(f"covariate names repeat: {names}")
    if len(names) > MAX_COVARIATES:
        raise ValueError(f"{len(names)} covariates, the limit is {MAX_COVARIATES}")


def ahead(covariates: Sequence[Covariate]) -> tuple[Covariate, ...]:
    """Return those with values for the slots ahead, in the order of the input `future`."""
    return tuple(covariate for covariate in covariates if covariate.kind == "known")
