"""A bundle carries the module that it was exported from, so that it can be trained further."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from rillcast.bundle.bundle import Bundle
from rillcast.errors import DataError
from rillcast_training.export.bundle import export
from rillcast_training.export.restore import MODULE_KEY, restore, shorten
from rillcast_training.model.forecaster import Forecaster
from tests.support.forecasters import brief_parity, random_forecaster, small_config
from tests.support.toy import write_toy

pytestmark = pytest.mark.usefixtures("brief_parity")


def forecasts_of(forecaster: Forecaster, events: int = 30, calibrate: float = 1.0) -> torch.Tensor:
    """Step one stream over a wave; `[events, H, Q]`."""
    rows = forecaster.initial_rows(1)
    found = []
    with torch.no_grad():
        for number in range(events):
            ds, y = torch.tensor([number * 3_600_000]), torch.tensor([10 + float(number % 4)])
            outputs, rows = forecaster.step(ds, y, rows, calibrate)
            found.append(outputs.forecast[0])
    return torch.stack(found)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Forecaster, Path]:
    forecaster = random_forecaster(small_config(cell="lstm", layers=2))
    path = tmp_path_factory.mktemp("bundle") / "model.onnx"
    with brief_parity():
        export(forecaster, path, name="small")
    return forecaster, path


def test_a_restored_forecaster_is_the_one_that_was_exported(exported: tuple[Forecaster, Path]) -> None:
    forecaster, path = exported
    restored = restore(path)
    assert restored.config == forecaster.config
    assert not restored.training
    torch.testing.assert_close(forecasts_of(restored), forecasts_of(forecaster), rtol=0, atol=0)


def test_the_module_is_no_part_of_the_model_id(exported: tuple[Forecaster, Path], tmp_path: Path) -> None:
    model = onnx.load(exported[1])
    kept = [entry for entry in model.metadata_props if entry.key != MODULE_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    stripped = tmp_path / "stripped.onnx"
    stripped.write_bytes(model.SerializeToString())
    assert Bundle.load(stripped).metadata.model_id == Bundle.load(exported[1]).metadata.model_id
    with pytest.raises(DataError, match="has no module"):
        restore(stripped)


def test_a_bundle_of_another_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"toy@.*has no module"):
        restore(write_toy(tmp_path / "toy.onnx"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"hidden": 6', '"hidden": 7'),
        ('"hidden": 6', '"hiden": 6'),
        ('"weights": "', '"weights": "AAAA'),
        ('"cell": "lstm"', '"cell": "tape"'),
    ],
)
def test_a_module_that_cannot_be_built_is_refused_with_the_reason(
    exported: tuple[Forecaster, Path], tmp_path: Path, old: str, new: str
) -> None:
    model = onnx.load(exported[1])
    (entry,) = (entry for entry in model.metadata_props if entry.key == MODULE_KEY)
    assert old in entry.value
    entry.value = entry.value.replace(old, new)
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match=r"this version cannot build its module: \w"):
        restore(changed)


@pytest.mark.parametrize("horizon", [1, 3, 5])
def test_a_shortened_forecaster_says_the_same_of_the_periods_that_are_left(
    exported: tuple[Forecaster, Path], horizon: int
) -> None:
    forecaster, _ = exported
    shorter = shorten(forecaster, horizon)
    assert shorter.config.horizon == horizon
    # Calibration learns at steps that depend on the horizon, so it is the network's own forecasts that are the same.
    expected = forecasts_of(forecaster, calibrate=0.0)[:, :horizon]
    torch.testing.assert_close(forecasts_of(shorter, calibrate=0.0), expected, rtol=1e-5, atol=1e-5)


def test_a_forecaster_cannot_be_lengthened(exported: tuple[Forecaster, Path]) -> None:
    with pytest.raises(DataError, match="horizon is 6, expected at most 5"):
        shorten(exported[0], 6)
