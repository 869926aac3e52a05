"""The state rows of a network's streams, and the outputs of its step.

Owns: their order as flat tuples, which is that of the exported graph. Does not know: what they mean
(`rillcast_training.model.forecaster`).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rillcast_training.model.calibration import Tracks


class Rows(NamedTuple):
    """State rows of a batch; see `rillcast_training.model.forecaster`.

    `cells` is one `[B, layers * hidden]` per cell state; `alarms` is None of a forecaster without them.
    """

    clock: Tensor
    lags: Tensor
    cells: tuple[Tensor, ...]
    pending: Tensor
    offsets: Tensor
    tails: Tensor
    alarms: Tensor | None = None

    @property
    def tracks(self) -> Tracks:
        """The calibrator's part."""
        return Tracks(self.pending, self.offsets)

    def flat(self) -> tuple[Tensor, ...]:
        """Return the tensors in the order of `Forecaster.state_specs`."""
        alarms = () if self.alarms is None else (self.alarms,)
        return (self.clock, self.lags, *self.cells, self.pending, self.offsets, self.tails, *alarms)

    @classmethod
    def from_flat(cls, rows: tuple[Tensor, ...]) -> Rows:
        """Undo `flat`; `pending` is the first part with three dimensions."""
        pending = next(number for number, part in enumerate(rows) if part.dim() == 3)
        return cls(rows[0], rows[1], tuple(rows[2:pending]), *rows[pending:])


class StepOutputs(NamedTuple):
    """Outputs of a step for each event.

    Attributes:
        forecast: `[B, H, Q]` in the stream's own unit.
        status: `[B]` int8, a `rillcast.bundle.bundle.Status`.
        score: `[B, len(scores)]`; NaN where the event resolves no forecast from that many periods ahead.
        anomaly: `[B]` in [0, 1]; NaN where the event resolves no forecast from one period ahead.
        alarm: `[B, 8]`, see `rillcast_training.model.alarms`; None of a forecaster without alarms.
    """

    forecast: Tensor
    status: Tensor
    score: Tensor
    anomaly: Tensor
    alarm: Tensor | None = None

    def flat(self) -> tuple[Tensor, ...]:
        """Return the outputs that exist."""
        return tuple(part for part in self if part is not None)
