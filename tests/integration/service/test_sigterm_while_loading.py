"""SIGTERM in each phase in which a service is loaded, from the first import to the check of its model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import signalled_at
from tests.support.service_process import ServiceProcess
from tests.support.toy import write_toy

INTERRUPTED = 143
PHASES = {
    "imports of the command": "rillcast/cli/commands/run.py:<module>",
    "settings": "rillcast/cli/flags.py:load_settings",
    "imports of numbers": "numpy/__init__.py:<module>",
    "imports of the runtime": "onnxruntime/__init__.py:<module>",
    "imports of the service": "rillcast/service/build.py:<module>",
    "load of the model": "rillcast/bundle/bundle.py:Bundle.load",
    "check of the model": "rillcast/bundle/contract.py:check_graph",
}


@pytest.mark.parametrize("place", PHASES.values(), ids=list(PHASES))
def test_a_sigterm_while_a_service_is_loaded_ends_it_in_a_line(place: str, tmp_path: Path) -> None:
    settings = {"model": write_toy(tmp_path / "toy.onnx"), "kafka.bootstrap_servers": "127.0.0.1:9"}  # not reached
    process = ServiceProcess(settings, tmp_path, command=signalled_at.command(place))
    try:
        process.wait_until(lambda: signalled_at.said(place) in process.log, place)
        assert process.wait() == INTERRUPTED, process.log[-4000:]
    finally:
        process.kill()
    assert "Traceback" not in process.log, process.log[-4000:]
    assert process.log.endswith("rillcast: interrupted\n"), process.log[-4000:]
