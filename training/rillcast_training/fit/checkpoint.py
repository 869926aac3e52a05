"""The state of a training run between two epochs, and its file.

Owns: what a run needs to go on exactly where it stopped, and the check that it is the same run. Does not know: what is
trained, or how. The file is replaced as a whole, so a run that is killed while writing leaves the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor

from rillcast.errors import SettingsError

_VERSION: Final = 1


class Stateful(Protocol):
    """A module, an optimiser or a schedule."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take a state over."""
        ...


class EpochRecord(NamedTuple):
    """One point of the training curve: mean scaled quantile losses."""

    epoch: int
    training: float
    validation: float


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        epoch: epochs done.
        seconds: time spent in them, over all sittings.
        best_epoch: the one with the lowest validation loss.
        best_loss: that loss.
        best_weights: what it was reached with, on the CPU.
        best_figures: all of its validation figures.
        curve: one record per epoch.
    """

    epoch: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_figures: dict[str, float] = field(default_factory=dict)
    curve: list[EpochRecord] = field(default_factory=list)

    def keep(self, weights: Mapping[str, Tensor], figures: dict[str, float], *, epoch: int) -> None:
        """Take these for the best so far."""
        self.best_epoch, self.best_loss, self.best_figures = epoch, figures["scaled_loss"], figures
        self.best_weights = {name: tensor.to("cpu", copy=True) for name, tensor in weights.items()}


def save(path: Path, progress: Progress, run: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Write a checkpoint.

    Args:
        path: the file; replaced if it exists.
        progress: where the run stands.
        run: what identifies the run: plain values that a resumed one must share.
        parts: what else has a state, by name.
    """
    partial = path.with_name(f".{path.name}.partial")
    torch.save(
        {
            "version": _VERSION,
            "run": dict(run),
            "progress": _to_file(progress),
            "parts": {name: part.state_dict() for name, part in parts.items()},
        },
        partial,
    )
    partial.replace(path)


def restore(path: Path, run: Mapping[str, Any], parts: Mapping[str, Stateful]) -> Progress:
    """Read a checkpoint: bring `parts` to where it says and return how far that is.

    It may have been written on another device: the parts take its values over to theirs.

    Raises:
        SettingsError: the file is no checkpoint, or one of another run.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each raise types of their own
        kind = type(error).__name__
        raise SettingsError(f"checkpoint {path}: not readable ({kind}); remove it to start anew") from error
    if found.get("version") != _VERSION:
        raise SettingsError(f"checkpoint {path}: version {found.get('version')}, expected {_VERSION}; remove it")
    there = found["run"]
    if different := sorted(key for key in run if run[key] != there.get(key)):
        told = ", ".join(f"{key} {there.get(key)!r} there and {run[key]!r} here" for key in different)
        raise SettingsError(f"checkpoint {path}: of another run: {told}; remove it or name another")
    for name, part in parts.items():
        part.load_state_dict(found["parts"][name])
    return _from_file(found["progress"])


def _to_file(progress: Progress) -> dict[str, Any]:
    """Return the progress as plain values; the format names the curve `history`."""
    plain = asdict(progress)
    plain["history"] = [tuple(record) for record in plain.pop("curve")]
    return plain


def _from_file(plain: dict[str, Any]) -> Progress:
    records = [EpochRecord(*record) for record in plain["history"]]
    return Progress(**{name: value for name, value in plain.items() if name != "history"}, curve=records)
