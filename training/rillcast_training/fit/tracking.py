"""A training run as a run of an MLflow server: parameters, curve, figures, report, bundle.

Owns: what is logged, when, and how the run ends. Does not know: HTTP (`rillcast.bundle.registry.mlflow_client`), the
loop. Where the server is away when the run begins, nothing is trained. One that goes away later does not stop the
training: what it missed is logged with the next epoch.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rillcast.bundle.registry.mlflow_client import SCHEMES, MlflowClient, Run, is_mlflow, now_ms
from rillcast.errors import RegistryError, RegistryUnreachableError, SettingsError
from rillcast.figures import to_json
from rillcast_training.fit.checkpoint import EpochRecord
from rillcast_training.fit.options import TrainOptions

log = logging.getLogger(__name__)

BUNDLE_FOLDER: Final = "bundle"
_NO_PARAMETERS: Final = frozenset({"quiet", "track", "checkpoint", "out"})
_MOST_METRICS: Final = 1000  # of one request


class Tracking:
    """One MLflow run. `begin` makes it; `tracked` ends it."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client, self._run = client, run
        self._metrics: list[dict[str, Any]] = []

    @classmethod
    def begin(cls, address: str, options: TrainOptions) -> Tracking:
        """Make a run and log the options.

        Raises:
            SettingsError: The address is not MLflow's.
            RegistryError: The server refuses, or does not answer.
        """
        if not is_mlflow(address):
            expected = " or ".join(f"{scheme}://HOST:PORT/NAME" for scheme in SCHEMES)
            raise SettingsError(f"--track {address}: expected {expected}")
        client = MlflowClient(address)
        name = options.name or options.out.name.removesuffix(".onnx")
        run = client.create_run(name, {"rillcast.data": options.source})
        given = {key: value for key, value in asdict(options).items() if key not in _NO_PARAMETERS}
        parameters = [{"key": key, "value": str(value)[:500]} for key, value in given.items() if value is not None]
        client.send("runs/log-batch", {"run_id": run.run_id, "params": parameters})
        return cls(client, run)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._run.run_id

    def epoch(self, record: EpochRecord) -> None:
        """Log one point of the curve."""
        losses = {"training_loss": record.training, "validation_loss": record.validation}
        self._note(losses, record.epoch)
        try:
            self._send()
        except RegistryUnreachableError as error:
            log.warning("%s; epoch %d is logged with the next one", error, record.epoch)

    def finish(self, report: Mapping[str, Any], figures: Mapping[str, float], bundle: Path, curve: Path | None) -> None:
        """Log the figures, the report, the picture of the curve and the bundle.

        Raises:
            RegistryError: The server refuses, or does not answer. The bundle is on disk all the same.
        """
        try:
            self._note(figures, 0)
            self._send()
            tags = [{"key": "rillcast.model_id", "value": str(report["model_id"])}]
            self._client.send("runs/log-batch", {"run_id": self.run_id, "tags": tags})
            data = bundle.read_bytes()
            file = f"{BUNDLE_FOLDER}/{hashlib.sha256(data).hexdigest()}.onnx"  # where a push keeps it
            files = {file: data, "report.json": to_json(report).encode()}
            if curve is not None:
                files[curve.name] = curve.read_bytes()
            for name, content in files.items():
                self._client.upload(f"{self._run.artifact_uri}/{name}", content)
        except RegistryError as error:
            error.args = (f"{error}; {bundle} is written, but run {self.run_id} of MLflow lacks it",)
            raise

    def end(self, status: str) -> None:
        """End the run as `FINISHED`, `FAILED` or `KILLED`.

        Raises:
            RegistryError: The server refuses, or does not answer.
        """
        self._client.end_run(self.run_id, status)

    def _note(self, figures: Mapping[str, float], step: int) -> None:
        at = now_ms()
        self._metrics += [
            {"key": name, "value": value, "timestamp": at, "step": step}
            for name, value in figures.items()
            if math.isfinite(value)  # JSON has no other numbers
        ]

    def _send(self) -> None:
        while self._metrics:
            part = self._metrics[:_MOST_METRICS]
            self._client.send("runs/log-batch", {"run_id": self.run_id, "metrics": part})
            del self._metrics[: len(part)]


@contextmanager
def tracked(options: TrainOptions) -> Iterator[Tracking | None]:
    """Run with the MLflow run that the options ask for, and end it as the body ends; None = they ask for none.

    Raises:
        SettingsError: The address is not MLflow's.
        RegistryError: The server refuses, or does not answer.
    """
    if options.track is None:
        yield None
        return
    tracking = Tracking.begin(options.track, options)
    try:
        yield tracking
    except BaseException as error:
        try:
            tracking.end("FAILED" if isinstance(error, Exception) else "KILLED")
        except RegistryError as lost:
            log.warning("%s; run %s of MLflow looks as if it went on", lost, tracking.run_id)
        raise
    tracking.end("FINISHED")
