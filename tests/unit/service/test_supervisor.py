"""A crew of processes keeps its members running, and ends when it should."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from rillcast.errors import SettingsError
from rillcast.service.supervisor import Supervisor, members
from rillcast.settings import HttpSettings, InputSettings, KafkaSettings, OutputSettings, Settings, StateSettings

DEADLINE_S = 30.0


def die_once(marker: Path) -> None:
    """Be killed the first time; be done the second."""
    if not marker.exists():
        marker.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    marker.write_text("done")


def test_a_member_that_dies_is_started_again(tmp_path: Path) -> None:
    markers = [tmp_path / "0", tmp_path / "1"]
    assert Supervisor(die_once, markers, first_pause_s=0.01).run() == 0
    assert [marker.read_text() for marker in markers] == ["done", "done"]


def fail_or_wait(path: Path) -> None:
    """Wait to be stopped, or end with what no restart mends."""
    if path.name == "broken":
        sys.exit(3)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    path.touch()
    signal.pause()


def test_an_error_for_a_person_ends_all_with_its_code(tmp_path: Path) -> None:
    assert Supervisor(fail_or_wait, [tmp_path / "well", tmp_path / "broken"]).run() == 3


def test_stop_asks_every_member_to_finish(tmp_path: Path) -> None:
    paths = [tmp_path / "0", tmp_path / "1"]
    crew = Supervisor(fail_or_wait, paths)

    def stop_when_all_run() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not all(path.exists() for path in paths) and time.monotonic() < deadline:
            time.sleep(0.01)
        crew.stop()

    watcher = threading.Thread(target=stop_when_all_run)
    watcher.start()
    assert crew.run() == 0
    watcher.join()
    assert all(path.exists() for path in paths)


def wait_without_handler(path: Path) -> None:
    """Be asked to end while still starting."""
    path.touch()
    signal.pause()


def test_a_member_that_is_stopped_while_it_starts_has_done_nothing_wrong(tmp_path: Path) -> None:
    supervisor = Supervisor(wait_without_handler, [tmp_path / "0"])

    def stop_when_it_runs() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not (tmp_path / "0").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        supervisor.stop()

    watcher = threading.Thread(target=stop_when_it_runs)
    watcher.start()
    assert supervisor.run() == 0
    watcher.join()


def test_members_have_names_and_ports_of_their_own() -> None:
    settings = Settings(kafka=KafkaSettings(transactional_id="t"), http=HttpSettings(port=9000))
    made = members(settings, 3, "host")
    assert [each.kafka.group_instance_id for each in made] == ["host-0", "host-1", "host-2"]
    assert [each.kafka.transactional_id for each in made] == ["t-0", "t-1", "t-2"]
    assert [each.http.port for each in made] == [9000, 9001, 9002]


def test_a_given_name_is_kept_and_a_free_port_stays_free() -> None:
    settings = Settings(kafka=KafkaSettings(group_instance_id="pod"), http=HttpSettings(port=0))
    made = members(settings, 2, "host")
    assert [(each.kafka.group_instance_id, each.http.port) for each in made] == [("pod-0", 0), ("pod-1", 0)]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(input=InputSettings(path="in.csv")),
        Settings(output=OutputSettings(path="out.jsonl")),
        Settings(state=StateSettings(store="local")),
    ],
)
def test_what_cannot_be_shared_out_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError):
        members(settings, 2, "host")
