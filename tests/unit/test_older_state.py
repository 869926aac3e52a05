"""State of each form since 0.1.0, as the code that introduced it wrote it, is restored with the same forecasts.

tests/fixtures/state/README.md says how the files were made.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.errors import BundleError
from rillcast.transports.base import Channel
from tests.support import releases
from tests.support.stored_forms import FORMS, REFUSED, alarms_in, bundles, forecasts_in, log_at_the_stop, restored


@pytest.mark.parametrize("form", FORMS)
def test_state_is_restored_and_goes_on_with_the_same_forecasts(form: str, tmp_path: Path) -> None:
    log = log_at_the_stop(form)
    restored(form, log, tmp_path / "state").worker.run()
    seen = [decode_forecast(value, key) for key, value, _ in log.published[Channel.FORECASTS]]
    releases.assert_same_forecasts(seen, forecasts_in(releases.STATE / form))
    assert any(forecast.revision for forecast in seen) == (form == "late-raw"), "a late event corrects what was told"
    if form == "silent":
        silences = [value for _, value, _ in log.published[Channel.ALARMS]]
        assert silences == alarms_in(releases.STATE / form), "one ends that began before the stop"


@pytest.mark.parametrize("form", FORMS)
def test_the_forecasts_are_those_of_the_state(form: str, tmp_path: Path) -> None:
    """Without it they are others, so the test above shows that it was read."""
    log = log_at_the_stop(form)
    harness = restored(form, log, tmp_path / "state")
    shutil.rmtree(tmp_path / "state")
    log.committed = {}
    harness.worker.run()
    seen = [decode_forecast(value, key) for key, value, _ in log.published[Channel.FORECASTS]]
    with pytest.raises(AssertionError):
        releases.assert_same_forecasts(seen, forecasts_in(releases.STATE / form))


def test_the_first_bundles_with_alarms_are_refused_with_what_to_do() -> None:
    """They had one budget for all streams; the commit after them gave each stream its own, and refused them."""
    with pytest.raises(BundleError, match=r"one number for all streams.*export it again \(`rillcast universal export`"):
        bundles(REFUSED)


def test_every_folder_is_tested() -> None:
    folders = {path.name for path in releases.STATE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*FORMS, REFUSED}
    readme = (releases.STATE / "README.md").read_text()
    assert all(f"| `{form}` |" in readme for form in folders)
