"""The schema of a bundle's metadata.

Owns: the members, their allowed values, and the meaning of a status.
Does not know: ONNX, files, whether the graph agrees (`rillcast.bundle.contract` checks that).
"""

from __future__ import annotations

import enum
import itertools
import math
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rillcast.bundle import covariates, frequency
from rillcast.bundle.covariates import Covariate
from rillcast.bundle.frequency import Frequency

SCHEMA_VERSION: Final = 1
MAX_ROW_BYTES: Final = 16 * 2**20
_STATE_DTYPES: Final = frozenset({"float32", "float16", "int64", "int32", "int8", "bool"})


class Status(enum.IntEnum):
    """The result of an event, the graph's output `status`. The first status that applies wins."""

    OK = 0
    WARMING_UP = 1  # advanced; fewer than `context` periods seen, so the forecast is still less accurate
    MISSING = 2  # advanced with `y` masked
    GAP = 3  # advanced over at least one period without an event
    DUPLICATE = 4  # same period as the stream's newest event; state unchanged
    LATE = 5  # an earlier period than the stream's newest event; state unchanged

    @property
    def advanced(self) -> bool:
        """Whether the event changed its stream's state."""
        return self not in (Status.DUPLICATE, Status.LATE)


class StateSpec(BaseModel):
    """One kind of per-stream state: `[N, *row_shape]` of `dtype`, bound as `state.<name>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
    dtype: str
    row_shape: Annotated[tuple[Annotated[int, Field(gt=0, le=MAX_ROW_BYTES)], ...], Field(max_length=8)]

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value not in _STATE_DTYPES:
            raise ValueError(f"state dtype {value!r} is not one of {sorted(_STATE_DTYPES)}")
        return value

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Numpy type of one element."""
        return np.dtype(self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stream's row."""
        return math.prod(self.row_shape) * self.numpy_dtype.itemsize


class BundleMetadata(BaseModel):
    """Metadata of a bundle, stored as JSON in the ONNX file under the key `rillcast`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(min_length=1, max_length=200)]
    model_id: str = ""
    cell: str
    freq: str
    horizon: Annotated[int, Field(ge=1, le=10_000)]
    quantiles: Annotated[tuple[float, ...], Field(min_length=1, max_length=1_000)]
    context: Annotated[int, Field(ge=0, description="periods until a stream counts as warm")] = 0
    season: Annotated[int, Field(ge=1, description="periods in the main season")] = 1
    states: Annotated[tuple[StateSpec, ...], Field(min_length=1, max_length=100)]
    scores: tuple[str, ...] = ()
    covariates: tuple[Covariate, ...] = ()
    training: dict[str, Any] = {}
    backtest: dict[str, float] = {}
    versions: dict[str, str] = {}

    @field_validator("freq")
    @classmethod
    def _known_frequency(cls, value: str) -> str:
        return frequency.canonical(value)

    @field_validator("quantiles")
    @classmethod
    def _increasing_levels(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < q < 1 for q in value) or any(b <= a for a, b in itertools.pairwise(value)):
            raise ValueError(f"quantile levels must increase strictly within (0, 1), got {list(value)}")
        return value

    @field_validator("states")
    @classmethod
    def _unique_states(cls, value: tuple[StateSpec, ...]) -> tuple[StateSpec, ...]:
        names = [spec.name for spec in value]
        if len(set(names)) != len(names):
            raise ValueError(f"state names repeat: {names}")
        if (row_bytes := sum(spec.row_bytes for spec in value)) > MAX_ROW_BYTES:
            raise ValueError(f"the state of one stream takes {row_bytes} bytes, the limit is {MAX_ROW_BYTES}")
        return value

    @field_validator("covariates")
    @classmethod
    def _covariates_go_together(cls, value: tuple[Covariate, ...]) -> tuple[Covariate, ...]:
        covariates.check(value)
        return value

    @property
    def known_ahead(self) -> tuple[Covariate, ...]:
        """The covariates with values for periods ahead, in the order of the input `future`."""
        return covariates.ahead(self.covariates)

    @property
    def frequency(self) -> Frequency:
        """The frequency that `freq` names."""
        return frequency.parse(self.freq)

    @property
    def row_bytes(self) -> int:
        """Bytes of state that one stream takes on the device."""
        return sum(spec.row_bytes for spec in self.states)
