"""The settings that are found for a topic decode its records to the streams that are meant, whatever its layout."""

from __future__ import annotations

import numpy as np
import pytest

from rillcast.codecs.connect import open_decoder
from rillcast.discovery import layout as layouts
from rillcast.discovery.proposal import propose
from rillcast.discovery.sample import Sample
from rillcast.settings import Settings
from tests.support.layouts import draw


@pytest.mark.parametrize("seed", range(30))
def test_every_record_is_decoded_to_the_stream_time_and_value_that_are_meant(seed: int) -> None:
    drawn = draw(seed)
    settings = Settings()
    sample = Sample("topic", drawn.polled, 2, None)
    proposal = propose(settings, layouts.of_topic(settings, drawn.polled), lambda _settings: sample)
    said = f"{drawn.described}\n{proposal.choice.values}"
    events, rejections = open_decoder(proposal.settings, None).decode(drawn.polled)
    assert not rejections, said
    assert list(events.unique_ids) == drawn.ids, said
    assert events.ds.tolist() == drawn.ds, said
    np.testing.assert_allclose(events.y, np.array(drawn.y), rtol=1e-6, err_msg=said)
