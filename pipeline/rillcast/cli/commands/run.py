"""`rillcast run`: the service."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Collection, Mapping
from functools import partial
from typing import Final

from rillcast import threads
from rillcast.bundle.registry import reference
from rillcast.bundle.registry.reference import Reference
from rillcast.cli import failures, flags, progress
from rillcast.cli.signals import end_at_once, keep_exit_code, on_request_to_stop
from rillcast.errors import ServedByAnotherKindError, SettingsError
from rillcast.observability import logs
from rillcast.settings import Settings

EXAMPLES: Final = """\
examples:
  rillcast run --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast run --model model.onnx --kafka.bootstrap-servers localhost:9092 --workers 4
  rillcast run --model model.onnx --input.path data.csv --output.path forecasts.jsonl
  rillcast run --model s3://bucket/models@live --kafka.bootstrap-servers localhost:9092
  some-producer | rillcast run --model model.onnx --input.path - --output.path - --http.enabled false

With --workers N, N processes share the partitions. Process I (from 0) has the port http.port + I and the static member
name kafka.group_instance_id-I (default: the host's name). A process that crashes is restarted; one that ends with 2, 3,
4 or 6 ends all of them.

With --input.path, existing output files are replaced when the run ends well; over a topic, it appends to them. A run
over a file without any forecast is an error, and leaves an existing file of forecasts as it is.

Ctrl-C or SIGTERM commits the published forecasts and ends with 0; a second Ctrl-C ends at once.
Exit codes: 0 done, 2 settings, 3 model, 4 device, 5 source, sink or registry (a restart may help), 6 recovery, 7 a
file gave no forecast.
"""

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--workers", type=int, default=1, help="processes that share the partitions (default: 1)")
    flags.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Run until the source ends or a signal arrives."""
    settings = flags.load_settings(args)
    if args.workers < 1:
        raise SettingsError(f"--workers {args.workers}: expected at least 1")
    logs.configure(settings.log.level, settings.log.format)
    follows = {table.name: found for table in settings.served if (found := reference.parse(table.model)) is not None}
    settings = flags.with_local_model(settings)  # once, so that all processes have the same model, restarted ones too
    if args.workers == 1:
        _serve(settings, follows)
        return 0
    from rillcast.service.supervisor import Supervisor, members

    supervisor = Supervisor(
        partial(serve_as_member, follows=follows), members(settings, args.workers, socket.gethostname())
    )
    on_request_to_stop(supervisor.stop)
    return supervisor.run()


def serve_as_member(settings: Settings, follows: Mapping[str, Reference]) -> None:
    """Serve in a process of the supervisor; an expected error becomes its exit code, as on the command line."""
    try:
        _serve(settings, follows)
    except Exception as error:
        if (found := failures.known(error)) is None:
            raise
        sys.exit(failures.report(found))
    finally:
        keep_exit_code()


def _serve(settings: Settings, follows: Mapping[str, Reference]) -> None:
    logs.configure(settings.log.level, settings.log.format)
    log.info("settings", extra={"fields": {"settings": settings.model_dump(mode="json")}})
    claims_decide = {name for name, each in follows.items() if each.is_alias}
    while True:
        try:
            _build_and_run(settings, follows, claims_decide)
        except ServedByAnotherKindError as error:
            settings = _with_claimed(settings, follows, error)
            claims_decide.discard(error.route)
        else:
            return


def _with_claimed(settings: Settings, follows: Mapping[str, Reference], error: ServedByAnotherKindError) -> Settings:
    """Return the settings with the model that serves a partition already, which is of another kind than the alias's."""
    end_at_once()  # the worker that signals would stop has ended; the next one is built first
    asked = follows[error.route]  # else no claim decides
    serving = Reference(asked.registry, error.model_id)
    log.error(
        "%s. %s@%s is not served: going on with %s. Roll the alias back, or start with %s@MODEL_ID as the model",
        error,
        *asked,
        error.model_id,
        asked.registry,
    )
    return flags.with_local_model(settings.with_models({error.route: str(serving)}))


def _build_and_run(settings: Settings, follows: Mapping[str, Reference], claims_decide: Collection[str]) -> None:
    from rillcast.service import build

    shown = progress.of_run(settings)
    around = None if shown is None else shown.watch
    built = build.build(settings, follows=follows, claims_decide=claims_decide, around_source=around)
    on_request_to_stop(built.stop)
    try:
        with threads.ending_process(failures.tell):
            built.run()
    finally:
        if shown is not None:
            shown.clear()
