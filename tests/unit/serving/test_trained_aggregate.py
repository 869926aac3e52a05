"""A model that was trained on aggregated events is served with the same aggregate."""

from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from rillcast.bundle.bundle import Bundle, seal
from rillcast.engine.device import Device
from rillcast.errors import SettingsError
from rillcast.observability.metrics import Metrics
from rillcast.serving.factory import Observers, ServedModelFactory
from rillcast.settings import InputSettings, Settings
from tests.support.memory import Log, MemorySink
from tests.support.toy import ToyGraph


def prepare(trained: object, **given: object) -> None:
    toy = ToyGraph()
    metadata = toy.metadata().model_copy(update={"training": {"aggregate": trained} if trained else {}})
    bundle = Bundle.from_bytes(seal(toy.model(), metadata))
    settings = Settings(input=InputSettings.model_validate(given))
    observers = Observers(Metrics(CollectorRegistry(), {"": metadata}, "cpu"))
    ServedModelFactory(settings, Device("cpu"), MemorySink(Log({})), observers).prepare(bundle)


SUM = {"aggregate": "sum", "close": "stream", "empty": "zero", "silent_after": 100}


@pytest.mark.parametrize(
    ("trained", "given", "warning"),
    [
        (SUM, {"aggregate": "sum", "close": "partition"}, ""),
        (SUM, {"aggregate": "sum", "empty": "missing"}, "empty periods as zero, and here they are missing"),
        (SUM, {}, "'sum', and these are taken as they come"),
        (None, {"aggregate": "count"}, ""),
        (None, {}, ""),
        ("a later form", {"aggregate": "count"}, ""),
    ],
)
def test_another_aggregate_is_said_once(
    trained: object, given: dict[str, object], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        prepare(trained, **given)
    assert len(caplog.records) == bool(warning)
    assert warning in caplog.text


def test_an_aggregate_that_contradicts_the_training_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"input.aggregate is 'mean': model .* aggregated by 'sum'.*set it as"):
        prepare(SUM, aggregate="mean")
