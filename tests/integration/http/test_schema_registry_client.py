"""The client of the schema registry against an address where nothing listens."""

from __future__ import annotations

import pytest

from rillcast.codecs.observations.avro import AvroFormat
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.schema_registry import Registry
from rillcast.errors import TransportError
from rillcast.settings import RegistrySettings
from tests.support.hostile import polled


def test_a_registry_that_does_not_answer_is_no_fault_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rillcast.codecs.schema_registry._RETRIES", 0)
    registry = Registry(RegistrySettings(url="http://127.0.0.1:9", timeout_s=1))
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:9 does not answer"):
        ObservationDecoder(form=AvroFormat(registry)).decode(polled([b"\0\0\0\0\x01payload"]))
