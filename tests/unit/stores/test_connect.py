"""The pages of every shipped bundle fit the default settings, and the topics that exist already."""

from __future__ import annotations

import pytest

from rillcast.bundle import shipped
from rillcast.bundle.bundle import Bundle
from rillcast.errors import SettingsError
from rillcast.settings import InputSettings, KafkaSettings, Settings
from rillcast.stores.connect import codec_of, page_bytes, require_room
from rillcast.stores.state_topic import DEFAULT_MAX_MESSAGE_BYTES


@pytest.mark.parametrize("name", sorted(shipped.names()))
@pytest.mark.parametrize("lateness", [0, 48])
def test_a_shipped_bundle_keeps_its_state_in_a_topic_by_default(name: str, lateness: int) -> None:
    settings = Settings(model=name, input=InputSettings(allowed_lateness_periods=lateness))
    metadata = Bundle.load(name).metadata
    require_room(settings, metadata)
    assert page_bytes(settings, metadata) <= DEFAULT_MAX_MESSAGE_BYTES
    assert codec_of(settings, metadata).page_slots >= 16, "small pages make many records"


def test_a_local_store_has_pages_of_any_size() -> None:
    metadata = Bundle.load("universal:1h").metadata
    files = Settings(input=InputSettings(path="in.csv"))
    assert codec_of(files, metadata).page_slots == 256


def test_a_row_that_no_record_takes_is_refused() -> None:
    metadata = Bundle.load("universal:1h").metadata
    settings = Settings(kafka=KafkaSettings(max_message_bytes=5_000))
    with pytest.raises(SettingsError, match=r"kafka\.max_message_bytes is 5000; raise it to at least"):
        require_room(settings, metadata)
