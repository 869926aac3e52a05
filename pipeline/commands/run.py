"""`rillcast run`: the service."""

from __future__ import annotations

import argparse
import logging
import signal
from types import FrameType
from typing import Final

from pipeline import logs
from pipeline.commands import settings_flags

HELP: Final = "serve forecasts: one step of the model per event"
EXAMPLES: Final = """\
examples:
  rillcast run --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast run --model model.onnx --input.path data.csv --output.path forecasts.jsonl
  some-producer | rillcast run --model model.onnx --input.path - --output.path - --http.enabled false

Ctrl-C or SIGTERM commits what was published and ends with 0; a second Ctrl-C ends at once.
Exit codes: 0 done, 2 settings, 3 model, 4 device, 5 source or sink (starting again may help), 6 recovery.
"""

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    settings_flags.add(parser)


def run(args: argparse.Namespace) -> int:
    """Run until the source ends or a signal comes."""
    from pipeline import service

    settings = settings_flags.load(args)
    logs.configure(settings.log.level, settings.log.format)
    log.info("settings: %s", settings.model_dump_json())
    built = service.build(settings)

    def stop(number: int, _frame: FrameType | None) -> None:
        log.info("%s: finishing", signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        built.worker.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    built.run()
    return 0
