"""Names of the numpy array types that cross module borders."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float32]
StatusArray: TypeAlias = npt.NDArray[np.int8]
AnyArray: TypeAlias = npt.NDArray[Any]
