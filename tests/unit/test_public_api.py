"""The public API: exactly these names, with these signatures, loaded when they are first used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import version

import pytest

import rillcast
from tests.support.paths import ROOT

# The public names. A change here is a change for users: say it in CHANGELOG.md.
SIGNATURES = {
    "Bundle": "(metadata, model, step, has_calibrate=False, has_bounds=False, has_alarm_interval=False, sequence=None)",
    "Bundle.from_bytes": "(data)",
    "Bundle.load": "(path)",
    "Device": "(name, threads=1, cuda_graphs=False, tf32=False)",
    "EventBatch.of": "(unique_ids, ds, y, x=None, future=None, *, partition=0, first_offset=0)",
    "StepEngine.step": "(self, events)",
    "choose_device": "(name, threads=1, *, cuda_graphs='auto', tf32=False)",
    "decode_forecast": "(value, key=None)",
    "load_settings": "(file=None, flags=None, default_file=PosixPath('rillcast.toml'))",
    "seal": "(model, metadata, sequence=None)",
}
FIELDS = {
    "BundleMetadata": [
        "schema_version", "name", "model_id", "cell", "freq", "horizon", "quantiles", "context", "season", "states",
        "scores", "covariates", "training", "backtest", "versions",
    ],
    "EventBatch": ["partitions", "offsets", "unique_ids", "ds", "y", "x", "future", "timestamps_ms"],
    "Forecast": [
        "unique_id", "ds", "freq", "model", "status", "quantiles", "values", "anomaly", "partition", "offset",
        "revision",
    ],
    "StateSpec": ["name", "dtype", "row_shape"],
    "StepResult": [
        "outcome", "forecast", "status", "score", "anomaly", "stats", "revision", "late", "revised", "alarm",
    ],
}  # fmt: skip
MEMBERS = {
    "Outcome": ["STEPPED", "ALREADY_APPLIED", "TOO_MANY_STREAMS", "QUARANTINED", "TOO_MANY_NEW_STREAMS"],
    "Status": ["OK", "WARMING_UP", "MISSING", "GAP", "DUPLICATE", "LATE"],
}
ERRORS = {"BundleError": 3, "DataError": 2, "DeviceError": 4, "RillcastError": 1, "SettingsError": 2}
NAMES = {name.split(".")[0] for name in (*SIGNATURES, *FIELDS, *MEMBERS, *ERRORS)}
NAMES |= {"Settings", "__version__"}


def test_the_public_names_are_these() -> None:
    assert set(rillcast.__all__) == NAMES
    assert sorted(rillcast.__all__) == rillcast.__all__
    assert set(rillcast.__all__) <= set(dir(rillcast))
    assert all(getattr(rillcast, name) is not None for name in rillcast.__all__)
    assert rillcast.__version__ == version("rillcast")


def test_every_public_name_has_a_place_on_the_page_of_the_api() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text()
    assert [name for name in rillcast.__all__ if name not in page] == []


def found(path: str) -> object:
    value: object = rillcast
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_are_these(name: str) -> None:
    target = found(name)
    assert callable(target)
    signature = inspect.signature(target)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    plain = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    assert str(plain) == SIGNATURES[name]


def test_an_engine_takes_a_bundle_and_a_device_and_options_by_name() -> None:
    first, second, *options = inspect.signature(rillcast.StepEngine).parameters.values()
    assert (first.name, second.name) == ("bundle", "on")
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}
    assert inspect.Parameter.empty not in {option.default for option in options}


@pytest.mark.parametrize("name", FIELDS)
def test_the_fields_of_records_are_these(name: str) -> None:
    fields = list(inspect.signature(getattr(rillcast, name)).parameters)
    assert fields[: len(FIELDS[name])] == FIELDS[name]


@pytest.mark.parametrize("name", MEMBERS)
def test_the_members_of_enumerations_are_these(name: str) -> None:
    assert list(getattr(rillcast, name).__members__) == MEMBERS[name]


def test_errors_have_a_root_and_exit_codes() -> None:
    for name, code in ERRORS.items():
        error = getattr(rillcast, name)
        assert issubclass(error, rillcast.RillcastError)
        assert error.exit_code == code


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'rillcast' has no attribute 'Bundel'"):
        rillcast.Bundel  # noqa: B018


def test_names_are_loaded_when_they_are_first_used() -> None:
    code = (
        "import sys, rillcast, rillcast.errors; heavy = {'onnxruntime', 'numpy', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules))); rillcast.StepEngine; print('onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True"]
