"""The state of a training run between two epochs, and its file.

Owns: the state that a run needs to continue exactly where it stopped, and the check that it is the same run. Does not
know: the trained module, or the loop. The file is replaced as a whole, so a run that is killed while writing leaves the
previous one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor

from rillcast.errors import SettingsError
from rillcast.outputs import replacing

_VERSION: Final = 1


class Stateful(Protocol):
    """A module, an optimiser or a schedule."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Load a state."""
        ...


class EpochRecord(NamedTuple):
    """One point of the training curve: mean scaled quantile losses."""

    epoch: int
    training: float
    validation: float


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        epoch: Epochs done.
        seconds: Time spent in them, over all starts of the run.
        best_epoch: Epoch with the lowest validation loss.
        best_loss: That loss.
        best_weights: Weights of that epoch, on the CPU.
        best_figures: All validation figures of that epoch.
        curve: One record per epoch.
    """

    epoch: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_figures: dict[str, float] = field(default_factory=dict)
    curve: list[EpochRecord] = field(default_factory=list)

    def keep(self, weights: Mapping[str, Tensor], figures: dict[str, float], *, epoch: int) -> None:
        """Record these as the best so far."""
        self.best_epoch, self.best_loss, self.best_figures = epoch, figures["scaled_loss"], figures
        self.best_weights = {name: tensor.to("cpu", copy=True) for name, tensor in weights.items()}


def save(path: Path, progress: Progress, run: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Write a checkpoint, as a whole.

    Args:
        path: File; replaced if it exists.
        progress: Progress of the run.
        run: Identity of the run: plain values that a resumed one must share.
        parts: Everything else that has a state, by name.

    Raises:
        OutputError: It cannot be written; the previous one is unchanged.
    """
    content = {
        "version": _VERSION,
        "run": dict(run),
        "progress": _to_file(progress),
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    with replacing(path) as partial:
        torch.save(content, partial)


def read(path: Path | None) -> bytes | None:
    """Return the content of a checkpoint; None if there is no such file.

    Raises:
        SettingsError: the file cannot be read.
    """
    if path is None or not path.exists():
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"checkpoint {path}: {error.strerror or error}") from error


def restore(path: Path, content: bytes, run: Mapping[str, Any], parts: Mapping[str, Stateful]) -> Progress:
    """Load the state of `parts` from a checkpoint's content and return the progress.

    It may come from another device: the parts copy its values to theirs.

    Raises:
        SettingsError: the file is no checkpoint, or belongs to another run.
    """
    found = _loaded(path, content)
    saved = found["run"]
    if different := sorted(key for key in run if _chosen(run[key]) != _chosen(saved.get(key))):
        listed = ", ".join(f"{key} is {saved.get(key)!r}, expected {run[key]!r}" for key in different)
        raise SettingsError(f"checkpoint {path}: belongs to another run: {listed}; remove it or name another")
    for name, part in parts.items():
        part.load_state_dict(found["parts"][name])
    return _from_file(found["progress"])


def run_of(path: Path, content: bytes) -> dict[str, Any]:
    """Return the identity of the run that a checkpoint's content belongs to.

    Raises:
        SettingsError: the file is no checkpoint.
    """
    run: dict[str, Any] = _loaded(path, content)["run"]
    return run


def _loaded(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each raise their own types
        kind = type(error).__name__
        raise SettingsError(f"checkpoint {path}: not readable ({kind}); remove it to start again") from error
    if found.get("version") != _VERSION:
        raise SettingsError(f"checkpoint {path}: version {found.get('version')}, expected {_VERSION}; remove it")
    return found


def _to_file(progress: Progress) -> dict[str, Any]:
    """Return the progress as plain values; the format names the curve `history`."""
    plain = asdict(progress)
    plain["history"] = [tuple(record) for record in plain.pop("curve")]
    return plain


def _from_file(plain: dict[str, Any]) -> Progress:
    """Undo `_to_file`."""
    records = [EpochRecord(*record) for record in plain["history"]]
    return Progress(**{name: value for name, value in plain.items() if name != "history"}, curve=records)


def _chosen(value: Any) -> Any:
    """Return an option without what is off in it: an option that has come since is absent in older checkpoints."""
    if isinstance(value, Mapping):
        return {name: _chosen(part) for name, part in value.items() if part is not None and part is not False}
    return None if value is False else value
